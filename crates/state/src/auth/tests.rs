//! Authentication through the machine.

mod model;

use api::Error;
use api::pb::authpb::{Permission, UserAddOptions};
use api::pb::etcdserverpb as pb;
use prost::Message;

use crate::auth::{
    Authorised, Caller, LeaseKeys, LeaseRenewal, LoggedIn, Root, TheseKeys, WatchKeys,
};
use crate::fatal::ReadError;
use crate::machine::tests::{Rig, put_request};
use crate::machine::{Effect, Machine};
use crate::reply::{Header, Reply};

type Request = pb::InternalRaftRequest;

/// Applies a request of a user at the present auth revision.
fn as_user(rig: &mut Rig, user: &str, mut request: Request) -> Result<Reply, Error> {
    let auth_revision = rig.view.auth_status().1;
    let username = user.to_string();
    request.header = Some(pb::RequestHeader {
        id: 1,
        username,
        auth_revision,
    });
    rig.apply(request)
}

fn user_add(name: &str) -> Request {
    let add = pb::AuthUserAddRequest {
        name: name.into(),
        hashed_password: "aGFzaA==".into(),
        ..Default::default()
    };
    Request {
        auth_user_add: Some(add),
        ..Default::default()
    }
}

fn grant_role(user: &str, role: &str) -> Request {
    let (user, role) = (user.into(), role.into());
    let grant = pb::AuthUserGrantRoleRequest { user, role };
    Request {
        auth_user_grant_role: Some(grant),
        ..Default::default()
    }
}

fn role_add(name: &str) -> Request {
    let add = pb::AuthRoleAddRequest { name: name.into() };
    Request {
        auth_role_add: Some(add),
        ..Default::default()
    }
}

fn grant(role: &str, perm_type: i32, key: &str, end: &[u8]) -> Request {
    let (key, range_end) = (key.to_string().into(), end.to_vec().into());
    let perm = Some(Permission {
        perm_type,
        key,
        range_end,
    });
    let grant = pb::AuthRoleGrantPermissionRequest {
        name: role.into(),
        perm,
    };
    Request {
        auth_role_grant_permission: Some(grant),
        ..Default::default()
    }
}

fn put(key: &str) -> Request {
    Request {
        put: Some(put_request(key, "v")),
        ..Default::default()
    }
}

fn delete(key: &str, end: &str) -> Request {
    let (key, range_end) = (key.to_string().into(), end.to_string().into());
    let delete = pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv: false,
    };
    Request {
        delete_range: Some(delete),
        ..Default::default()
    }
}

fn enable() -> Request {
    Request {
        auth_enable: Some(pb::AuthEnableRequest {}),
        ..Default::default()
    }
}

/// Root, and alice who may write a..c, read c..e and everything from x on.
fn enabled() -> Rig {
    let mut rig = prepared();
    rig.apply(enable()).unwrap();
    rig
}

/// What [`enabled`] is before that.
fn prepared() -> Rig {
    let mut rig = Rig::new();
    for request in [
        user_add("root"),
        grant_role("root", "root"),
        user_add("alice"),
        role_add("r"),
        grant("r", 1, "a", b"b"),
        grant("r", 1, "b", b"c"),
        grant("r", 0, "c", b"e"),
        grant("r", 2, "x", &[0]),
        grant_role("alice", "r"),
    ] {
        rig.apply(request).unwrap();
    }
    rig
}

#[test]
fn the_switch_needs_root_with_its_role() {
    let mut rig = Rig::new();
    assert_eq!(rig.apply(enable()), Err(Error::RootUserNotExist));
    rig.apply(user_add("root")).unwrap();
    assert_eq!(rig.apply(enable()), Err(Error::RootRoleNotExist));
    rig.apply(grant_role("root", "root")).unwrap();
    assert_eq!(rig.view.auth_status(), (false, 3));
    rig.apply(enable()).unwrap();
    assert_eq!(rig.view.auth_status(), (true, 3));
}

#[test]
fn permissions_are_checked_when_a_write_is_applied() {
    let mut rig = enabled();
    let denied = Err(Error::PermissionDenied);
    let mut outcome = |user: &str, request| as_user(&mut rig, user, request).map(drop);
    assert_eq!(outcome("", put("a")), denied);
    assert_eq!(outcome("nobody", put("a")), denied);
    assert_eq!(outcome("alice", put("a")), Ok(()));
    assert_eq!(outcome("alice", put("c")), denied);
    assert_eq!(outcome("alice", put("zzz")), Ok(()));
    assert_eq!(outcome("root", put("c")), Ok(()));
    // Adjacent intervals are one.
    assert_eq!(outcome("alice", delete("a", "c")), Ok(()));
    assert_eq!(outcome("alice", delete("a", "c1")), denied);
    assert_eq!(outcome("alice", delete("y", "\0")), Ok(()));
    let mut back = put_request("a", "v");
    back.prev_kv = true;
    assert_eq!(
        outcome(
            "alice",
            Request {
                put: Some(back),
                ..Default::default()
            }
        ),
        denied
    );
    assert_eq!(outcome("alice", role_add("r2")), denied);
    assert_eq!(outcome("", role_add("r2")), Err(Error::UserEmpty));
    assert_eq!(outcome("nobody", role_add("r2")), Err(Error::UserNotFound));
    assert_eq!(rig.apply(put("a")), Err(Error::UserEmpty));
    let read = |rig: &Rig, revision, key: &[u8], end: &[u8]| {
        let range = pb::RangeRequest {
            key: key.to_vec().into(),
            range_end: end.to_vec().into(),
            ..Default::default()
        };
        let caller = Caller {
            user: "alice",
            revision: Some(revision),
        };
        rig.view.authorise(caller, range).map(drop)
    };
    let (_, revision) = rig.view.auth_status();
    assert_eq!(read(&rig, revision, b"c", b"e"), Ok(()));
    assert_eq!(read(&rig, revision, b"c", b"f"), denied);
    assert_eq!(
        read(&rig, revision - 1, b"c", b"e"),
        Err(Error::AuthOldRevision)
    );
}

#[test]
fn a_lease_needs_all_its_keys() {
    let mut rig = enabled();
    let lease_grant = Some(pb::LeaseGrantRequest { id: 5, ttl: 10 });
    rig.apply(Request {
        lease_grant,
        ..Default::default()
    })
    .unwrap();
    let leased = |key: &str| {
        let put = pb::PutRequest {
            lease: 5,
            ..put_request(key, "v")
        };
        Request {
            put: Some(put),
            ..Default::default()
        }
    };
    as_user(&mut rig, "root", leased("secret")).unwrap();
    let denied = Err(Error::PermissionDenied);
    assert_eq!(as_user(&mut rig, "alice", leased("a")), denied);
    let lease_revoke = Some(pb::LeaseRevokeRequest { id: 5 });
    let revoke = Request {
        lease_revoke,
        ..Default::default()
    };
    assert_eq!(as_user(&mut rig, "alice", revoke.clone()), denied);
    assert!(as_user(&mut rig, "root", revoke).is_ok());
}

#[test]
fn everything_is_there_after_a_restart() {
    let mut rig = enabled();
    let rig_status = rig.view.auth_status();
    as_user(&mut rig, "root", put("c")).unwrap();
    let mut rig = rig.reopen(true);
    assert_eq!(rig.view.auth_status(), rig_status);
    assert_eq!(
        as_user(&mut rig, "alice", put("c")),
        Err(Error::PermissionDenied)
    );
    assert!(as_user(&mut rig, "alice", put("a")).is_ok());
    assert_eq!(rig.view.login("alice").unwrap().0, "hash");
}

#[test]
fn a_simple_token_has_the_number_of_the_entry_before() {
    let mut rig = enabled();
    let authenticate = |name: &str| {
        let authenticate = pb::InternalAuthenticateRequest {
            name: name.into(),
            simple_token: "abcdefghijklmnop".into(),
            ..Default::default()
        };
        Request {
            authenticate: Some(authenticate),
            ..Default::default()
        }
    };
    let entry = rig.entry(authenticate("alice"));
    let applied = Machine::apply(&mut rig.machine, &entry).unwrap();
    let mut out = Vec::new();
    applied
        .outcome
        .unwrap()
        .encode(&Header::default(), &mut out);
    let token = pb::AuthenticateResponse::decode(&out[..]).unwrap().token;
    assert_eq!(token, format!("abcdefghijklmnop.{}", entry.index.0 - 1));
    let user = "alice".to_string();
    assert_eq!(applied.effects[..], [Effect::TokenAssigned { user, token }]);
    assert_eq!(rig.apply(authenticate("nobody")), Err(Error::AuthFailed));
    let options = Some(UserAddOptions { no_password: true });
    let add = pb::AuthUserAddRequest {
        name: "cert".into(),
        options,
        ..Default::default()
    };
    let request = Request {
        auth_user_add: Some(add),
        ..Default::default()
    };
    as_user(&mut rig, "root", request).unwrap();
    assert_eq!(rig.apply(authenticate("cert")), Err(Error::AuthFailed));
}

#[test]
fn a_password_that_is_not_stored_may_be_in_the_entry() {
    let mut rig = Rig::new();
    let mut add = user_add("cert");
    let request = add.auth_user_add.as_mut().unwrap();
    request.options = Some(UserAddOptions { no_password: true });
    request.hashed_password = String::new();
    // Go's server leaves it there.
    request.password = "ignored".into();
    assert!(rig.apply(add).is_ok());
    let change = pb::AuthUserChangePasswordRequest {
        name: "cert".into(),
        password: "ignored".into(),
        ..Default::default()
    };
    let change = |name: &str| Request {
        auth_user_change_password: Some(pb::AuthUserChangePasswordRequest {
            name: name.into(),
            ..change.clone()
        }),
        ..Default::default()
    };
    assert!(rig.apply(change("cert")).is_ok());
    assert_eq!(rig.apply(change("nobody")), Err(Error::UserNotFound));
}

#[test]
fn passwords_in_entries_of_old_releases_are_hashed_alike_by_all() {
    let stored = |rig: &Rig, name: &str| rig.view.login(name).unwrap().0;
    let mut rigs = [enabled(), enabled()];
    let hashes = rigs.each_mut().map(|rig| {
        let mut add = user_add("old");
        let request = add.auth_user_add.as_mut().unwrap();
        request.hashed_password = String::new();
        request.password = "before 3.5".into();
        let mut twin = add.clone();
        twin.auth_user_add.as_mut().unwrap().name = "twin".into();
        for request in [add, twin] {
            as_user(rig, "root", request).unwrap();
        }
        let change = pb::AuthUserChangePasswordRequest {
            name: "alice".into(),
            password: "changed".into(),
            ..Default::default()
        };
        let change = |password: String| Request {
            auth_user_change_password: Some(pb::AuthUserChangePasswordRequest {
                password,
                ..change.clone()
            }),
            ..Default::default()
        };
        as_user(rig, "root", change("changed".into())).unwrap();
        let long = as_user(rig, "root", change("x".repeat(73)));
        assert_eq!(long, Err(Error::NoPasswordUser));
        ["old", "twin", "alice"].map(|name| stored(rig, name))
    });
    assert_eq!(hashes[0], hashes[1]);
    let [old, twin, alice] = &hashes[0];
    assert_ne!(old, twin, "each has a salt of its own");
    for (password, hash) in [
        ("before 3.5", old),
        ("before 3.5", twin),
        ("changed", alice),
    ] {
        let hash = str::from_utf8(hash).unwrap();
        assert!(hash.starts_with("$2a$10$"), "{hash}");
        assert!(bcrypt::verify(password, hash).unwrap());
    }
}

#[test]
fn a_deleted_role_is_taken_from_its_users() {
    let mut rig = enabled();
    let role_delete = Some(pb::AuthRoleDeleteRequest { role: "r".into() });
    let request = Request {
        auth_role_delete: role_delete,
        ..Default::default()
    };
    as_user(&mut rig, "root", request).unwrap();
    let has_roles = |rig: &Rig| {
        let state = rig.machine.shared.state.read();
        !state.auth.user("alice").unwrap().roles.is_empty()
    };
    assert!(!has_roles(&rig));
    assert_eq!(
        as_user(&mut rig, "alice", put("a")),
        Err(Error::PermissionDenied)
    );
    let root = pb::AuthRoleDeleteRequest {
        role: "root".into(),
    };
    let request = Request {
        auth_role_delete: Some(root),
        ..Default::default()
    };
    assert_eq!(
        as_user(&mut rig, "root", request),
        Err(Error::InvalidAuthMgmt)
    );
}

fn caller(user: &str) -> Caller<'_> {
    Caller {
        user,
        revision: None,
    }
}

fn range(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_string().into(),
        range_end: end.to_string().into(),
        ..Default::default()
    }
}

fn refused<T>(outcome: Result<T, ReadError>) -> Option<Error> {
    match outcome {
        Ok(_) => None,
        Err(ReadError::Refused(error)) => Some(error),
        Err(ReadError::Broken(fatal)) => panic!("{fatal}"),
    }
}

#[test]
fn a_proof_of_the_time_before_authentication_is_good_no_longer() {
    let mut rig = prepared();
    let keys = rig.view.authorise(Caller::NOBODY, LeaseKeys(5)).unwrap();
    let range = rig.view.authorise(Caller::NOBODY, range("c", "e")).unwrap();
    assert_eq!(rig.view.lease_keys(&keys), Ok(vec![]));
    assert_eq!(refused(rig.view.range(&range)), None);
    rig.apply(enable()).unwrap();
    let nobody = Error::UserEmpty;
    assert_eq!(rig.view.lease_keys(&keys), Err(nobody));
    assert_eq!(refused(rig.view.range(&range)), Some(nobody));
}

#[test]
fn a_proof_is_good_for_the_users_that_it_was_asked_of() {
    let mut rig = enabled();
    let asked = rig
        .view
        .authorise(caller("alice"), range("c", "e"))
        .unwrap();
    assert_eq!(refused(rig.view.range(&asked)), None);
    let mut parts = rig.view.range_parts(&asked).unwrap();
    as_user(&mut rig, "root", role_add("other")).unwrap();
    let old = Some(Error::AuthOldRevision);
    assert_eq!(refused(rig.view.range(&asked)), old);
    assert_eq!(refused(rig.view.range_parts(&asked)), old);
    assert_eq!(refused(parts.next_part(10, 1 << 20)), old);
    let txn = pb::TxnRequest {
        success: vec![pb::RequestOp {
            request: Some(pb::request_op::Request::RequestRange(range("c", "e"))),
        }],
        ..Default::default()
    };
    let asked = rig.view.authorise(caller("alice"), txn).unwrap();
    assert_eq!(refused(rig.view.txn(&asked)), None);
    let disable = Request {
        auth_disable: Some(pb::AuthDisableRequest {}),
        ..Default::default()
    };
    as_user(&mut rig, "root", disable).unwrap();
    // Nobody needs a proof any more, and whoever has one may use it.
    assert_eq!(refused(rig.view.txn(&asked)), None);
    let unasked = rig.view.authorise(Caller::NOBODY, range("a", "z")).unwrap();
    assert_eq!(refused(rig.view.range(&unasked)), None);
    rig.apply(enable()).unwrap();
    assert_eq!(refused(rig.view.range(&unasked)), Some(Error::UserEmpty));
    assert_eq!(refused(rig.view.txn(&asked)), old);
}

#[test]
fn the_table_of_what_a_member_does_by_itself() {
    let mut rig = enabled();
    let grant = |id| Request {
        lease_grant: Some(pb::LeaseGrantRequest { id, ttl: 10 }),
        ..Default::default()
    };
    let leased = |key: &str, lease| Request {
        put: Some(pb::PutRequest {
            lease,
            ..put_request(key, "v")
        }),
        ..Default::default()
    };
    for (id, key) in [(5, "a"), (6, "c")] {
        rig.apply(grant(id)).unwrap();
        as_user(&mut rig, "root", leased(key, id)).unwrap();
    }
    let view = &rig.view;
    let (nobody, alice, root) = (Caller::NOBODY, caller("alice"), caller("root"));
    let denied = Err(Error::PermissionDenied);
    // A user who is in nobody's list may show a certificate.
    let stranger = caller("stranger");
    let asked = |who| view.authorise(who, LoggedIn).map(drop);
    assert_eq!(asked(nobody), Err(Error::UserEmpty));
    assert_eq!([asked(alice), asked(stranger), asked(root)], [Ok(()); 3]);
    let asked = |who| view.authorise(who, Root).map(drop);
    assert_eq!([asked(alice), asked(root)], [denied, Ok(())]);
    assert_eq!(asked(stranger), Err(Error::UserNotFound));
    assert_eq!(asked(nobody), Err(Error::UserEmpty));
    // Alice writes a, and reads c.
    let renewal = |who, id| view.authorise(who, LeaseRenewal(id)).map(drop);
    assert_eq!([renewal(alice, 5), renewal(alice, 6)], [Ok(()), denied]);
    assert_eq!([renewal(alice, 7), renewal(root, 6)], [Ok(()), Ok(())]);
    assert_eq!(renewal(nobody, 7), Err(Error::UserEmpty));
    let keys = |who, id| view.lease_keys(&view.authorise(who, LeaseKeys(id))?);
    assert_eq!(keys(alice, 5), Err(Error::PermissionDenied));
    assert_eq!(keys(alice, 6), Ok(vec!["c".into()]));
    assert_eq!(keys(root, 5), Ok(vec!["a".into()]));
    let by_member = Authorised::by_member(LeaseKeys(5));
    assert_eq!(view.lease_keys(&by_member), Ok(vec!["a".into()]));
    assert_eq!(view.authorise_all_leases(nobody), Err(Error::UserEmpty));
    assert_eq!(view.authorise_all_leases(alice), denied);
    assert_eq!(view.authorise_all_leases(root), Ok(()));
    let these = |keys: &[&'static str]| TheseKeys(keys.iter().map(|key| (*key).into()).collect());
    assert!(view.authorise(alice, these(&["c", "d"])).is_ok());
    assert!(view.authorise(alice, these(&["c", "a"])).is_err());
    let watch = |who, keys| view.authorise(who, keys).map(drop);
    assert_eq!(watch(alice, WatchKeys::One("c".into())), Ok(()));
    assert_eq!(watch(alice, WatchKeys::One("a".into())), denied);
    let to_e = WatchKeys::Range("c".into(), Some("e".into()));
    assert_eq!(watch(alice, to_e), Ok(()));
    assert_eq!(watch(alice, WatchKeys::Range("c".into(), None)), denied);
}
