//! People with permissions.

use super::table::Key;

/// What a permission is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    ReadWrite,
}

impl Kind {
    /// Its name in requests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Read => "READ",
            Kind::Write => "WRITE",
            Kind::ReadWrite => "READWRITE",
        }
    }
}

/// A permission as a role has it: `end` empty for one key, `\0` for everything from `key` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    pub kind: Kind,
    pub key: &'static str,
    pub end: &'static str,
}

/// A user, whose role has the same name.
#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    pub root: bool,
    pub permissions: Vec<Permission>,
    /// Whether there is a role of this name at all.
    pub has_role: bool,
}

/// Who calls.
#[derive(Clone, Debug)]
pub enum Who {
    User(User),
    /// Without any identity.
    Nobody,
    /// With a token that no member gave out.
    WrongToken,
    /// By a certificate, under a name that no user has.
    Stranger,
}

impl Who {
    /// A name for reports and exceptions.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Who::User(user) => &user.name,
            Who::Nobody => "nobody",
            Who::WrongToken => "wrong token",
            Who::Stranger => "stranger",
        }
    }
}

/// The stretches of keys that roles are for, each with a name.
const SPANS: [(&str, &str, &str); 4] = [
    ("key", "k/b", ""),
    ("range", "k/b", "k/d"),
    ("prefix", "k/", "k0"),
    ("open", "k/b", "\0"),
];

/// Root, every kind of permission on every stretch, one whose permissions meet, and one without
/// any role.
#[must_use]
pub fn users() -> Vec<User> {
    let user = |name: &str, root, permissions: Vec<Permission>| User {
        name: name.into(),
        root,
        has_role: !permissions.is_empty(),
        permissions,
    };
    let mut users = vec![user("root", true, Vec::new())];
    for (kind, word) in [
        (Kind::Read, "read"),
        (Kind::Write, "write"),
        (Kind::ReadWrite, "both"),
    ] {
        for (span, key, end) in SPANS {
            let name = format!("{word}-{span}");
            users.push(user(&name, false, vec![Permission { kind, key, end }]));
        }
    }
    let piece = |kind, key, end| Permission { kind, key, end };
    users.push(user(
        "pieces",
        false,
        vec![
            piece(Kind::ReadWrite, "k/", "k/b"),
            piece(Kind::Read, "k/b", "k/c"),
            piece(Kind::Write, "k/b", "k/bb"),
            piece(Kind::Write, "k/b0", "k/c"),
            piece(Kind::ReadWrite, "k/c", "k0"),
        ],
    ));
    users.push(user("plain", false, Vec::new()));
    users
}

/// One stretch: from `key` to before `end`; none for no end.
type Stretch = (Vec<u8>, Option<Vec<u8>>);

fn stretch(key: &str, end: &str) -> Stretch {
    let key = key.as_bytes().to_vec();
    match end {
        "" => {
            let next = [key.as_slice(), &[0]].concat();
            (key, Some(next))
        }
        "\0" => (key, None),
        end => (key, Some(end.as_bytes().to_vec())),
    }
}

impl User {
    /// Whether the permissions, taken together, cover all of it.
    #[must_use]
    pub fn may(&self, wanted: &Key) -> bool {
        let (key, end, kinds) = match *wanted {
            Key::Read(key, end) => (key, end, [Kind::Read, Kind::ReadWrite]),
            Key::Write(key, end) => (key, end, [Kind::Write, Kind::ReadWrite]),
        };
        let usable = self
            .permissions
            .iter()
            .filter(|one| kinds.contains(&one.kind));
        let have: Vec<Stretch> = usable.map(|one| stretch(one.key, one.end)).collect();
        let (mut reached, end) = stretch(key, end);
        // Each step goes on to the end of a stretch that holds the point that was reached.
        loop {
            let holds = |(from, to): &&Stretch| {
                *from <= reached && to.as_ref().is_none_or(|to| *to > reached)
            };
            match have.iter().find(holds) {
                None => return false,
                Some((_, None)) => return true,
                Some((_, Some(to))) if end.as_ref().is_some_and(|end| to >= end) => return true,
                Some((_, Some(to))) => reached.clone_from(to),
            }
        }
    }
}
