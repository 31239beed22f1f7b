//! The calls, and what each of them needs.

/// Keys that a call touches: one when the end is empty, all from the key on when it is `\0`.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    Read(&'static str, &'static str),
    Write(&'static str, &'static str),
}

/// What a caller must be or have.
#[derive(Clone, Copy, Debug)]
pub enum Needs {
    Nothing,
    LoggedIn,
    /// Permissions for all of these.
    Keys(&'static [Key]),
    /// To be this user, or root.
    User(&'static str),
    /// To have this role, or root's.
    Role(&'static str),
    Root,
}

/// What a row expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Error(&'static str, &'static str),
    /// Would change what other rows rely on.
    Untried,
}

/// A step that root takes: method and request.
pub type Step = (&'static str, &'static str);

/// A call and what comes of it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// `Service/Method`.
    pub call: &'static str,
    /// As protobuf text; `{peer}` stands for the member's peer URL.
    pub request: &'static str,
    pub needs: Needs,
    /// What those get who may.
    pub answer: Answer,
    /// What others get than the need says, by the name of the caller.
    pub except: &'static [(&'static str, Answer)],
    /// By root before each call, and after.
    pub before: &'static [Step],
    pub after: &'static [Step],
}

const fn row(call: &'static str, request: &'static str, needs: Needs) -> Row {
    Row {
        call,
        request,
        needs,
        answer: Answer::Done,
        except: &[],
        before: &[],
        after: &[],
    }
}

impl Row {
    const fn gives(self, code: &'static str, message: &'static str) -> Row {
        Row {
            answer: Answer::Error(code, message),
            ..self
        }
    }

    const fn untried(self) -> Row {
        Row {
            answer: Answer::Untried,
            ..self
        }
    }

    const fn but(self, except: &'static [(&'static str, Answer)]) -> Row {
        Row { except, ..self }
    }

    const fn after_steps(self, before: &'static [Step]) -> Row {
        Row { before, ..self }
    }

    const fn then_steps(self, after: &'static [Step]) -> Row {
        Row { after, ..self }
    }
}

const fn read(keys: &'static [Key]) -> Needs {
    Needs::Keys(keys)
}

use Key::{Read, Write};
use Needs::{Keys, LoggedIn, Nothing, Root};

/// Lease 119 (in names of lock keys: 77) with the key `k/b`; lease 120 without any.
const LEASED: &[Step] = &[
    ("Lease/LeaseRevoke", "ID:119"),
    ("Lease/LeaseRevoke", "ID:120"),
    ("Lease/LeaseGrant", "ID:119 TTL:1000"),
    ("Lease/LeaseGrant", "ID:120 TTL:1000"),
    ("KV/Put", r#"key:"k/b" lease:119"#),
];
/// The same without keys.
const GRANTED: &[Step] = &[
    ("Lease/LeaseRevoke", "ID:119"),
    ("Lease/LeaseGrant", "ID:119 TTL:1000"),
];
const UNLEASED: &[Step] = &[("Lease/LeaseRevoke", "ID:119")];
const VOTED: &[Step] = &[("KV/Put", r#"key:"k/vote/1" value:"one""#)];
const NO_VOTES: &[Step] = &[("KV/DeleteRange", r#"key:"k/vote/" range_end:"k/vote0""#)];

/// A token that is sent must be right, even where none is needed.
const LOOKED_AT: &[(&str, Answer)] = &[(
    "wrong token",
    Answer::Error("UNAUTHENTICATED", "etcdserver: invalid auth token"),
)];

/// Every call with everything that its permission depends on.
pub const ROWS: &[Row] = &[
    // Ranges.
    row("KV/Range", r#"key:"k/b""#, read(&[Read("k/b", "")])),
    row("KV/Range", r#"key:"k/a""#, read(&[Read("k/a", "")])),
    row("KV/Range", r#"key:"k/c""#, read(&[Read("k/c", "")])),
    row("KV/Range", r#"key:"k/z""#, read(&[Read("k/z", "")])),
    row("KV/Range", r#"key:"x""#, read(&[Read("x", "")])),
    row("KV/Range", r#"key:"a""#, read(&[Read("a", "")])),
    row(
        "KV/Range",
        r#"key:"k/b" range_end:"k/c""#,
        read(&[Read("k/b", "k/c")]),
    ),
    row(
        "KV/Range",
        r#"key:"k/b" range_end:"k/b\000""#,
        read(&[Read("k/b", "k/b\0")]),
    ),
    row(
        "KV/Range",
        r#"key:"k/b" range_end:"k/d""#,
        read(&[Read("k/b", "k/d")]),
    ),
    row(
        "KV/Range",
        r#"key:"k/b" range_end:"k/d\000""#,
        read(&[Read("k/b", "k/d\0")]),
    ),
    row(
        "KV/Range",
        r#"key:"k/a" range_end:"k/d" limit:1 keys_only:true"#,
        read(&[Read("k/a", "k/d")]),
    ),
    row(
        "KV/Range",
        r#"key:"k/" range_end:"k0" count_only:true"#,
        read(&[Read("k/", "k0")]),
    ),
    row(
        "KV/Range",
        r#"key:"k/b" range_end:"\000""#,
        read(&[Read("k/b", "\0")]),
    ),
    row(
        "KV/Range",
        r#"key:"z" range_end:"\000""#,
        read(&[Read("z", "\0")]),
    ),
    row(
        "KV/Range",
        r#"key:"\000" range_end:"\000""#,
        read(&[Read("\0", "\0")]),
    ),
    row(
        "KV/Range",
        r#"key:"k/b" serializable:true"#,
        read(&[Read("k/b", "")]),
    ),
    row(
        "KV/Range",
        r#"key:"k/" range_end:"k0" serializable:true"#,
        read(&[Read("k/", "k0")]),
    ),
    row("KV/RangeStream", r#"key:"k/b""#, read(&[Read("k/b", "")])),
    row(
        "KV/RangeStream",
        r#"key:"k/" range_end:"k0""#,
        read(&[Read("k/", "k0")]),
    ),
    row(
        "KV/RangeStream",
        r#"key:"\000" range_end:"\000" serializable:true"#,
        read(&[Read("\0", "\0")]),
    ),
    // Writes.
    row("KV/Put", r#"key:"k/b""#, Keys(&[Write("k/b", "")])),
    row("KV/Put", r#"key:"k/a""#, Keys(&[Write("k/a", "")])),
    row("KV/Put", r#"key:"k/d""#, Keys(&[Write("k/d", "")])),
    row("KV/Put", r#"key:"x""#, Keys(&[Write("x", "")])),
    row(
        "KV/Put",
        r#"key:"k/b" prev_kv:true"#,
        Keys(&[Write("k/b", ""), Read("k/b", "")]),
    ),
    row(
        "KV/Put",
        r#"key:"k/b" ignore_value:true"#,
        Keys(&[Write("k/b", "")]),
    )
    .after_steps(&[("KV/Put", r#"key:"k/b""#)]),
    row(
        "KV/Put",
        r#"key:"k/c" lease:119"#,
        Keys(&[Write("k/c", ""), Write("k/b", "")]),
    )
    .after_steps(LEASED)
    .then_steps(UNLEASED),
    row(
        "KV/Put",
        r#"key:"k/c" lease:119"#,
        Keys(&[Write("k/c", "")]),
    )
    .after_steps(GRANTED)
    .then_steps(UNLEASED),
    row(
        "KV/Put",
        r#"key:"k/c" lease:121"#,
        Keys(&[Write("k/c", "")]),
    )
    .gives("NOT_FOUND", "etcdserver: requested lease not found"),
    row("KV/DeleteRange", r#"key:"k/b""#, Keys(&[Write("k/b", "")])),
    row(
        "KV/DeleteRange",
        r#"key:"k/b" prev_kv:true"#,
        Keys(&[Write("k/b", ""), Read("k/b", "")]),
    ),
    row(
        "KV/DeleteRange",
        r#"key:"k/b" range_end:"k/d""#,
        Keys(&[Write("k/b", "k/d")]),
    ),
    row(
        "KV/DeleteRange",
        r#"key:"k/" range_end:"k0""#,
        Keys(&[Write("k/", "k0")]),
    ),
    row(
        "KV/DeleteRange",
        r#"key:"k/" range_end:"k0" prev_kv:true"#,
        Keys(&[Write("k/", "k0"), Read("k/", "k0")]),
    ),
    row(
        "KV/DeleteRange",
        r#"key:"k/b" range_end:"\000""#,
        Keys(&[Write("k/b", "\0")]),
    ),
    row(
        "KV/DeleteRange",
        r#"key:"\000" range_end:"\000""#,
        Keys(&[Write("\0", "\0")]),
    ),
    row("KV/Compact", "revision:1000000", Root).gives(
        "OUT_OF_RANGE",
        "etcdserver: mvcc: required revision is a future revision",
    ),
    // Transactions: every compare and both branches count, whichever is taken.
    row("KV/Txn", "", Nothing).but(LOOKED_AT),
    row(
        "KV/Txn",
        r#"compare { key:"k/b" target:VERSION version:0 }"#,
        read(&[Read("k/b", "")]),
    ),
    row(
        "KV/Txn",
        r#"compare { key:"k/b" range_end:"k/d" target:VERSION version:0 }"#,
        read(&[Read("k/b", "k/d")]),
    ),
    row(
        "KV/Txn",
        r#"success { request_range { key:"k/b" } }"#,
        read(&[Read("k/b", "")]),
    ),
    row(
        "KV/Txn",
        r#"failure { request_range { key:"k/" range_end:"k0" } }"#,
        read(&[Read("k/", "k0")]),
    ),
    row(
        "KV/Txn",
        r#"success { request_range { key:"k/b" serializable:true } }
           failure { request_range { key:"k/c" } }"#,
        read(&[Read("k/b", ""), Read("k/c", "")]),
    ),
    row(
        "KV/Txn",
        r#"success { request_put { key:"k/b" } }"#,
        Keys(&[Write("k/b", "")]),
    ),
    row(
        "KV/Txn",
        r#"success { request_put { key:"k/b" prev_kv:true } }"#,
        Keys(&[Write("k/b", ""), Read("k/b", "")]),
    ),
    row(
        "KV/Txn",
        r#"success { request_put { key:"k/b" } } failure { request_put { key:"k/c" } }"#,
        Keys(&[Write("k/b", ""), Write("k/c", "")]),
    ),
    row(
        "KV/Txn",
        r#"compare { key:"k/b" target:VERSION version:0 }
           success { request_put { key:"k/b" } }"#,
        Keys(&[Write("k/b", ""), Read("k/b", "")]),
    ),
    row(
        "KV/Txn",
        r#"success { request_put { key:"k/b" } }
           failure { request_delete_range { key:"k/" range_end:"k0" } }"#,
        Keys(&[Write("k/b", ""), Write("k/", "k0")]),
    ),
    row(
        "KV/Txn",
        r#"success { request_delete_range { key:"k/b" prev_kv:true } }"#,
        Keys(&[Write("k/b", ""), Read("k/b", "")]),
    ),
    row(
        "KV/Txn",
        r#"success { request_put { key:"k/b" } }
           failure { request_txn { success { request_range { key:"k/b" } } } }"#,
        Keys(&[Write("k/b", ""), Read("k/b", "")]),
    ),
    row(
        "KV/Txn",
        r#"success { request_txn {
             compare { key:"k/b" target:VERSION version:0 }
             failure { request_txn { failure { request_put { key:"k/c" } } } } } }"#,
        Keys(&[Read("k/b", ""), Write("k/c", "")]),
    ),
    row(
        "KV/Txn",
        r#"success { request_txn {
             success { request_txn { success { request_put { key:"k/b" prev_kv:true } } } }
             failure { request_delete_range { key:"k/b" range_end:"k/c" prev_kv:true } } } }"#,
        Keys(&[
            Write("k/b", ""),
            Read("k/b", ""),
            Write("k/b", "k/c"),
            Read("k/b", "k/c"),
        ]),
    ),
    row(
        "KV/Txn",
        r#"failure { request_put { key:"k/c" lease:119 } }"#,
        Keys(&[Write("k/c", ""), Write("k/b", "")]),
    )
    .after_steps(LEASED)
    .then_steps(UNLEASED),
    // Watches: the errors are reasons of cancelled ones.
    row(
        "Watch/Watch",
        r#"create_request { key:"k/b" }"#,
        read(&[Read("k/b", "")]),
    ),
    row(
        "Watch/Watch",
        r#"create_request { key:"k/b" range_end:"k/d" prev_kv:true }"#,
        read(&[Read("k/b", "k/d")]),
    ),
    row(
        "Watch/Watch",
        r#"create_request { key:"k/a" range_end:"k/d" start_revision:1 }"#,
        read(&[Read("k/a", "k/d")]),
    ),
    row(
        "Watch/Watch",
        r#"create_request { key:"k/" range_end:"k0" progress_notify:true }"#,
        read(&[Read("k/", "k0")]),
    ),
    row(
        "Watch/Watch",
        r#"create_request { key:"k/b" range_end:"\000" }"#,
        read(&[Read("k/b", "\0")]),
    ),
    row(
        "Watch/Watch",
        r#"create_request { range_end:"\000" filters:NOPUT filters:NODELETE }"#,
        read(&[Read("\0", "\0")]),
    ),
    // Leases.
    row("Lease/LeaseGrant", "ID:122 TTL:1000", LoggedIn)
        .after_steps(&[("Lease/LeaseRevoke", "ID:122")])
        .then_steps(&[("Lease/LeaseRevoke", "ID:122")]),
    row("Lease/LeaseRevoke", "ID:119", Keys(&[Write("k/b", "")])).after_steps(LEASED),
    row("Lease/LeaseRevoke", "ID:120", LoggedIn).after_steps(LEASED),
    row("Lease/LeaseRevoke", "ID:121", LoggedIn)
        .gives("NOT_FOUND", "etcdserver: requested lease not found"),
    row("Lease/LeaseKeepAlive", "ID:119", Keys(&[Write("k/b", "")])).after_steps(LEASED),
    row("Lease/LeaseKeepAlive", "ID:120", LoggedIn).after_steps(LEASED),
    row("Lease/LeaseTimeToLive", "ID:119", LoggedIn).after_steps(LEASED),
    row(
        "Lease/LeaseTimeToLive",
        "ID:119 keys:true",
        read(&[Read("k/b", "")]),
    )
    .after_steps(LEASED),
    row("Lease/LeaseTimeToLive", "ID:120 keys:true", LoggedIn).after_steps(LEASED),
    row("Lease/LeaseTimeToLive", "ID:121 keys:true", LoggedIn),
    row("Lease/LeaseLeases", "", read(&[Read("k/b", "")])).after_steps(LEASED),
    row("Lease/LeaseLeases", "", LoggedIn).after_steps(GRANTED),
    // Members.
    row("Cluster/MemberList", "", LoggedIn),
    row("Cluster/MemberList", "linearizable:true", LoggedIn),
    row("Cluster/MemberAdd", r#"peerURLs:"{peer}""#, Root).gives(
        "FAILED_PRECONDITION",
        "etcdserver: Peer URLs already exists",
    ),
    row(
        "Cluster/MemberAdd",
        r#"peerURLs:"{peer}" isLearner:true"#,
        Root,
    )
    .gives(
        "FAILED_PRECONDITION",
        "etcdserver: Peer URLs already exists",
    ),
    row("Cluster/MemberRemove", "ID:1", Root).gives("NOT_FOUND", "etcdserver: member not found"),
    row(
        "Cluster/MemberUpdate",
        r#"ID:1 peerURLs:"http://127.0.0.1:1""#,
        Root,
    )
    .gives("NOT_FOUND", "etcdserver: member not found"),
    row("Cluster/MemberPromote", "ID:1", Root).gives("NOT_FOUND", "etcdserver: member not found"),
    // Maintenance.
    row("Maintenance/Alarm", "", LoggedIn),
    row(
        "Maintenance/Alarm",
        "action:ACTIVATE memberID:1 alarm:CORRUPT",
        Root,
    )
    .untried(),
    row(
        "Maintenance/Alarm",
        "action:DEACTIVATE memberID:1 alarm:NOSPACE",
        Root,
    ),
    row("Maintenance/Status", "", LoggedIn),
    row("Maintenance/Defragment", "", Root),
    row("Maintenance/Hash", "", Root),
    row("Maintenance/HashKV", "", Root),
    row("Maintenance/Snapshot", "", Root),
    row("Maintenance/MoveLeader", "targetID:1", Root)
        .gives("FAILED_PRECONDITION", "etcdserver: bad leader transferee"),
    row(
        "Maintenance/Downgrade",
        r#"action:VALIDATE version:"x""#,
        Root,
    )
    .gives(
        "INVALID_ARGUMENT",
        "etcdserver: wrong downgrade target version format",
    ),
    row("Maintenance/Downgrade", "action:CANCEL", Root),
    // Users and roles.
    row("Auth/AuthStatus", "", Nothing).but(LOOKED_AT),
    row(
        "Auth/Authenticate",
        r#"name:"plain" password:"password of plain""#,
        Nothing,
    ),
    row("Auth/Authenticate", r#"name:"plain" password:"x""#, Nothing).gives(
        "INVALID_ARGUMENT",
        "etcdserver: authentication failed, invalid user ID or password",
    ),
    row(
        "Auth/Authenticate",
        r#"name:"no one" password:"x""#,
        Nothing,
    )
    .gives(
        "INVALID_ARGUMENT",
        "etcdserver: authentication failed, invalid user ID or password",
    ),
    row("Auth/AuthEnable", "", Root),
    row("Auth/AuthDisable", "", Root).untried(),
    row("Auth/UserAdd", r#"name:"plain" password:"x""#, Root).gives(
        "FAILED_PRECONDITION",
        "etcdserver: user name already exists",
    ),
    row("Auth/UserGet", r#"name:"plain""#, Needs::User("plain")),
    row("Auth/UserGet", r#"name:"root""#, Needs::User("root")),
    row(
        "Auth/UserGet",
        r#"name:"read-key""#,
        Needs::User("read-key"),
    ),
    row("Auth/UserList", "", Root),
    row("Auth/UserDelete", r#"name:"no one""#, Root)
        .gives("FAILED_PRECONDITION", "etcdserver: user name not found"),
    row("Auth/UserDelete", r#"name:"root""#, Root)
        .gives("INVALID_ARGUMENT", "etcdserver: invalid auth management"),
    row(
        "Auth/UserChangePassword",
        r#"name:"no one" password:"x""#,
        Root,
    )
    .gives("FAILED_PRECONDITION", "etcdserver: user name not found"),
    row(
        "Auth/UserChangePassword",
        r#"name:"plain" password:"x""#,
        Root,
    )
    .untried(),
    row("Auth/UserGrantRole", r#"user:"no one" role:"root""#, Root)
        .gives("FAILED_PRECONDITION", "etcdserver: user name not found"),
    row("Auth/UserGrantRole", r#"user:"plain" role:"root""#, Root).untried(),
    row("Auth/UserRevokeRole", r#"name:"root" role:"root""#, Root)
        .gives("INVALID_ARGUMENT", "etcdserver: invalid auth management"),
    row("Auth/UserRevokeRole", r#"name:"plain" role:"x""#, Root).gives(
        "FAILED_PRECONDITION",
        "etcdserver: role is not granted to the user",
    ),
    row("Auth/RoleAdd", r#"name:"read-key""#, Root).gives(
        "FAILED_PRECONDITION",
        "etcdserver: role name already exists",
    ),
    row(
        "Auth/RoleGet",
        r#"role:"read-key""#,
        Needs::Role("read-key"),
    ),
    row(
        "Auth/RoleGet",
        r#"role:"both-open""#,
        Needs::Role("both-open"),
    ),
    // Root's role needs not exist to be had.
    row("Auth/RoleGet", r#"role:"root""#, Root)
        .gives("FAILED_PRECONDITION", "etcdserver: role name not found"),
    row("Auth/RoleGet", r#"role:"no role""#, Root)
        .gives("FAILED_PRECONDITION", "etcdserver: role name not found"),
    row("Auth/RoleList", "", Root),
    row("Auth/RoleDelete", r#"role:"no role""#, Root)
        .gives("FAILED_PRECONDITION", "etcdserver: role name not found"),
    row("Auth/RoleDelete", r#"role:"root""#, Root)
        .gives("INVALID_ARGUMENT", "etcdserver: invalid auth management"),
    row(
        "Auth/RoleGrantPermission",
        r#"name:"no role" perm { key:"x" }"#,
        Root,
    )
    .gives("FAILED_PRECONDITION", "etcdserver: role name not found"),
    row(
        "Auth/RoleGrantPermission",
        r#"name:"read-key" perm { key:"" }"#,
        Root,
    )
    .gives("INVALID_ARGUMENT", "etcdserver: invalid auth management"),
    row(
        "Auth/RoleRevokePermission",
        r#"role:"read-key" key:"x""#,
        Root,
    )
    .gives(
        "FAILED_PRECONDITION",
        "etcdserver: permission is not granted to the role",
    ),
    // Who else speaks gRPC.
    row("grpc.health.v1.Health/Check", "", Nothing),
    row(
        "v3lockpb.Lock/Lock",
        r#"name:"k/lock" lease:119"#,
        Keys(&[
            Write("k/lock/77", ""),
            Read("k/lock/77", ""),
            Read("k/lock/", "k/lock0"),
        ]),
    )
    .after_steps(GRANTED)
    .then_steps(UNLEASED),
    row(
        "v3lockpb.Lock/Lock",
        r#"name:"k/lock" lease:119"#,
        Keys(&[
            Write("k/lock/77", ""),
            Read("k/lock/77", ""),
            Read("k/lock/", "k/lock0"),
            Write("x", ""),
        ]),
    )
    .after_steps(&[
        ("Lease/LeaseRevoke", "ID:119"),
        ("Lease/LeaseGrant", "ID:119 TTL:1000"),
        ("KV/Put", r#"key:"x" lease:119"#),
    ])
    .then_steps(UNLEASED),
    row(
        "v3lockpb.Lock/Unlock",
        r#"key:"k/lock/77""#,
        Keys(&[Write("k/lock/77", "")]),
    ),
    row(
        "v3electionpb.Election/Campaign",
        r#"name:"k/vote" lease:119 value:"me""#,
        Keys(&[
            Write("k/vote/77", ""),
            Read("k/vote/77", ""),
            Read("k/vote/", "k/vote0"),
        ]),
    )
    .after_steps(GRANTED)
    .then_steps(UNLEASED),
    row(
        "v3electionpb.Election/Proclaim",
        r#"leader { name:"k/vote" key:"k/vote/1" rev:1 } value:"me""#,
        Keys(&[Write("k/vote/1", ""), Read("k/vote/1", "")]),
    )
    .gives("UNKNOWN", "election: not leader")
    .after_steps(VOTED)
    .then_steps(NO_VOTES),
    row(
        "v3electionpb.Election/Leader",
        r#"name:"k/vote""#,
        Keys(&[Read("k/vote/", "k/vote0")]),
    )
    .after_steps(VOTED)
    .then_steps(NO_VOTES),
    row(
        "v3electionpb.Election/Observe",
        r#"name:"k/vote""#,
        Keys(&[Read("k/vote/", "k/vote0")]),
    )
    .after_steps(VOTED)
    .then_steps(NO_VOTES),
    row(
        "v3electionpb.Election/Resign",
        r#"leader { name:"k/vote" key:"k/vote/1" rev:1 }"#,
        Keys(&[Write("k/vote/1", ""), Read("k/vote/1", "")]),
    )
    .after_steps(VOTED)
    .then_steps(NO_VOTES),
];
