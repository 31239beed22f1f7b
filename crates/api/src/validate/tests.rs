//! Each rule of each request, in the order in which errors win.

use super::*;
use crate::pb::authpb::Permission;
use crate::pb::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};

fn ranged(key: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_string().into(),
        ..Default::default()
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn puts(key: &str) -> RequestOp {
    op(Request::RequestPut(PutRequest {
        key: key.to_string().into(),
        ..Default::default()
    }))
}

fn deletes(key: &str, end: &[u8]) -> RequestOp {
    let (key, range_end) = (key.to_string().into(), end.to_vec().into());
    op(Request::RequestDeleteRange(DeleteRangeRequest {
        key,
        range_end,
        prev_kv: false,
    }))
}

fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    op(Request::RequestTxn(TxnRequest {
        success,
        failure,
        ..Default::default()
    }))
}

fn check(success: Vec<RequestOp>) -> Result<(), Error> {
    txn(
        &TxnRequest {
            success,
            ..Default::default()
        },
        128,
    )
}

#[test]
fn ranges() {
    assert_eq!(range(&ranged("a")), Ok(()));
    let odd = pb::RangeRequest {
        sort_order: 3,
        ..ranged("")
    };
    assert_eq!(range(&odd), Err(Error::EmptyKey));
    let odd = pb::RangeRequest {
        sort_order: 3,
        ..ranged("a")
    };
    assert_eq!(range(&odd), Err(Error::InvalidSortOption));
    let odd = pb::RangeRequest {
        sort_target: -1,
        ..ranged("a")
    };
    assert_eq!(range(&odd), Err(Error::InvalidSortOption));
}

#[test]
fn streamed_ranges() {
    let ascending = pb::RangeRequest {
        sort_order: 1,
        ..ranged("a")
    };
    assert_eq!(range_stream(&ascending), Ok(()));
    let by_version = pb::RangeRequest {
        sort_target: 1,
        ..ranged("a")
    };
    assert_eq!(range_stream(&by_version), Ok(()));
    for request in [
        pb::RangeRequest {
            sort_order: 2,
            ..ranged("a")
        },
        pb::RangeRequest {
            sort_order: 1,
            sort_target: 1,
            ..ranged("a")
        },
        pb::RangeRequest {
            min_mod_revision: 1,
            ..ranged("a")
        },
        pb::RangeRequest {
            max_create_revision: -1,
            ..ranged("a")
        },
    ] {
        assert_eq!(
            range_stream(&request).unwrap_err().code,
            Code::Unimplemented
        );
    }
}

#[test]
fn puts_and_deletes() {
    let request = |key: &str| PutRequest {
        key: key.to_string().into(),
        ..Default::default()
    };
    assert_eq!(put(&request("")), Err(Error::EmptyKey));
    assert_eq!(put(&request("a")), Ok(()));
    let both = PutRequest {
        ignore_value: true,
        value: "v".into(),
        ignore_lease: true,
        lease: 1,
        ..request("a")
    };
    assert_eq!(put(&both), Err(Error::ValueProvided));
    let lease = PutRequest {
        ignore_value: false,
        ..both
    };
    assert_eq!(put(&lease), Err(Error::LeaseProvided));
    assert_eq!(
        delete_range(&DeleteRangeRequest::default()),
        Err(Error::EmptyKey)
    );
}

#[test]
fn transactions_have_a_budget_of_operations() {
    let many = |n: usize| (0..n).map(|n| puts(&n.to_string())).collect::<Vec<_>>();
    let of = |success| TxnRequest {
        success,
        ..Default::default()
    };
    assert_eq!(txn(&of(many(3)), 3), Ok(()));
    assert_eq!(txn(&of(many(4)), 3), Err(Error::TooManyOps));
    // A nested one has what its parent leaves.
    assert_eq!(txn(&of(vec![nested(many(2), vec![])]), 3), Ok(()));
    assert_eq!(
        txn(&of(vec![nested(many(3), vec![])]), 3),
        Err(Error::TooManyOps)
    );
    assert_eq!(
        txn(&of(vec![RequestOp::default()]), 3),
        Err(Error::KeyNotFound)
    );
    assert_eq!(txn(&of(vec![puts("")]), 3), Err(Error::EmptyKey));
    let compare = vec![Compare::default()];
    let request = TxnRequest {
        compare,
        ..of(vec![RequestOp::default()])
    };
    assert_eq!(txn(&request, 3), Err(Error::EmptyKey));
}

#[test]
fn no_key_is_changed_twice() {
    let twice = Err(Error::DuplicateKey);
    assert_eq!(check(vec![puts("a"), puts("b")]), Ok(()));
    assert_eq!(check(vec![puts("a"), puts("a")]), twice);
    assert_eq!(check(vec![puts("a"), deletes("a", b"")]), twice);
    assert_eq!(check(vec![puts("a"), deletes("b", b"")]), Ok(()));
    assert_eq!(check(vec![deletes("a", b"c"), puts("b")]), twice);
    assert_eq!(check(vec![deletes("a", b"c"), puts("c")]), Ok(()));
    // As etcd: a deletion with an open end is not looked at.
    assert_eq!(check(vec![deletes("a", &[0]), puts("zzz")]), Ok(()));
    assert_eq!(check(vec![deletes("c", b"a"), puts("b")]), Ok(()));
    // Unless the put needs the key, which etcd itself does not survive.
    let keeping = |key: &str| {
        let key = key.to_string().into();
        op(Request::RequestPut(PutRequest {
            key,
            ignore_value: true,
            ..Default::default()
        }))
    };
    assert_eq!(check(vec![deletes("b", &[0]), keeping("a")]), Ok(()));
    assert_eq!(check(vec![deletes("b", &[0]), keeping("c")]), twice);
    assert_eq!(
        check(vec![deletes("b", &[0]), nested(vec![], vec![keeping("c")])]),
        twice
    );
    assert_eq!(
        check(vec![keeping("c"), nested(vec![deletes("b", &[0])], vec![])]),
        twice
    );
    // Deletes may overlap, and overlapping ones count as one.
    let deep = vec![
        deletes("a", b"z"),
        deletes("b", b"c"),
        deletes("e", b""),
        puts("x"),
    ];
    assert_eq!(check(deep), twice);
    assert_eq!(check(vec![deletes("a", b"m"), deletes("f", b"z")]), Ok(()));
    // The two lists of a nested transaction may share keys, nothing else may.
    assert_eq!(
        check(vec![nested(vec![puts("a")], vec![puts("a")])]),
        Ok(())
    );
    assert_eq!(
        check(vec![nested(vec![puts("a")], vec![]), puts("a")]),
        twice
    );
    let two = vec![
        nested(vec![puts("a")], vec![]),
        nested(vec![], vec![puts("a")]),
    ];
    assert_eq!(check(two), twice);
    assert_eq!(
        check(vec![nested(vec![deletes("a", b"")], vec![]), puts("a")]),
        twice
    );
    assert_eq!(
        check(vec![deletes("a", b""), nested(vec![], vec![puts("a")])]),
        twice
    );
    let then = vec![
        nested(vec![puts("a")], vec![]),
        nested(vec![deletes("a", b"")], vec![]),
    ];
    assert_eq!(check(then), Ok(()));
    let then = vec![
        nested(vec![deletes("a", b"")], vec![]),
        nested(vec![puts("a")], vec![]),
    ];
    assert_eq!(check(then), twice);
    // The lists of the root are looked at one by one.
    let request = TxnRequest {
        success: vec![puts("a")],
        failure: vec![puts("a")],
        ..Default::default()
    };
    assert_eq!(txn(&request, 128), Ok(()));
}

#[test]
fn peer_urls_have_a_scheme_a_host_and_a_port() {
    let add = |urls: &[&str]| {
        let peer_ur_ls = urls.iter().map(|url| url.to_string()).collect();
        member_add(&pb::MemberAddRequest {
            peer_ur_ls,
            is_learner: false,
        })
    };
    let good = [
        "http://a:1",
        "https://[::1]:2380",
        "unix://localhost:1",
        "http://10.0.0.1:2380",
    ];
    assert_eq!(add(&good), Ok(()));
    assert_eq!(add(&[]), Err(Error::MemberBadURLs));
    for bad in [
        "",
        "a:1",
        "ftp://a:1",
        "http://a",
        "http://a:1/path",
        "http://a:99999",
        "http://::1:1",
    ] {
        assert_eq!(
            add(&["http://a:1", bad]),
            Err(Error::MemberBadURLs),
            "{bad}"
        );
    }
}

#[test]
fn the_rest() {
    let grant = |ttl| lease_grant(&pb::LeaseGrantRequest { ttl, id: 0 });
    assert_eq!(grant(LEASE_TTL_MAX), Ok(()));
    assert_eq!(grant(LEASE_TTL_MAX + 1), Err(Error::LeaseTTLTooLarge));
    assert_eq!(user_add(&Default::default()), Err(Error::UserEmpty));
    assert_eq!(role_add(&Default::default()), Err(Error::RoleEmpty));
    let perm = |key: &str, end: &str| {
        let (key, range_end) = (key.to_string().into(), end.to_string().into());
        let perm = Some(Permission {
            perm_type: 0,
            key,
            range_end,
        });
        role_grant_permission(&pb::AuthRoleGrantPermissionRequest {
            name: "r".into(),
            perm,
        })
    };
    assert_eq!(perm("b", ""), Ok(()));
    assert_eq!(perm("b", "\0"), Ok(()));
    assert_eq!(perm("b", "c"), Ok(()));
    assert_eq!(perm("b", "b"), Err(Error::InvalidAuthMgmt));
    assert_eq!(perm("", ""), Err(Error::InvalidAuthMgmt));
    assert_eq!(
        role_grant_permission(&Default::default()),
        Err(Error::PermissionNotGiven)
    );
    let action = |action| {
        downgrade(&pb::DowngradeRequest {
            action,
            version: String::new(),
        })
    };
    assert_eq!(action(2), Ok(()));
    assert_eq!(
        &*action(3).unwrap_err().message,
        "etcdserver: unknown method"
    );
    assert_eq!(client_api_version(b"3.7.0"), Ok("3.7.0"));
    assert_eq!(
        client_api_version(&[0xff]),
        Err(Error::InvalidClientAPIVersion)
    );
}
