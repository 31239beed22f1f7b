//! Checks of a request by itself, before anything is proposed; in the order in which their
//! errors win.

use std::collections::HashSet;

use crate::error::{Code, Error, Status};
use crate::pb::etcdserverpb as pb;
use crate::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::pb::etcdserverpb::request_op::Request;

mod overlap;
#[cfg(test)]
mod tests;

/// The largest TTL of a lease, in seconds.
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// Checks a Range.
///
/// # Errors
/// `EmptyKey`, `InvalidSortOption`.
pub fn range(request: &pb::RangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    SortOrder::try_from(request.sort_order).map_err(|_| Error::InvalidSortOption)?;
    SortTarget::try_from(request.sort_target).map_err(|_| Error::InvalidSortOption)?;
    Ok(())
}

/// Checks a RangeStream.
///
/// # Errors
/// Those of [`range`]; unimplemented for sort orders and revision filters.
pub fn range_stream(request: &pb::RangeRequest) -> Result<(), Status> {
    range(request)?;
    let ascending = request.sort_order == SortOrder::Ascend as i32
        && request.sort_target == SortTarget::Key as i32;
    if request.sort_order != SortOrder::None as i32 && !ascending {
        let text = "RangeStream does not support custom sort orders";
        return Err(Status::new(Code::Unimplemented, text));
    }
    if request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
    {
        let text = "RangeStream does not support revision filters";
        return Err(Status::new(Code::Unimplemented, text));
    }
    Ok(())
}

/// Checks a Put.
///
/// # Errors
/// `EmptyKey`, `ValueProvided`, `LeaseProvided`.
pub fn put(request: &pb::PutRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

/// Checks a DeleteRange.
///
/// # Errors
/// `EmptyKey`.
pub fn delete_range(request: &pb::DeleteRangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        Err(Error::EmptyKey)
    } else {
        Ok(())
    }
}

/// Checks a Txn with at most `ops_max` compares and operations per list; a nested transaction has
/// what its parent leaves of that.
///
/// # Errors
/// `TooManyOps`, `EmptyKey`, those of the operations, `KeyNotFound` for an operation without
/// request, `DuplicateKey` for a key that one run would change twice.
pub fn txn(request: &pb::TxnRequest, ops_max: usize) -> Result<(), Error> {
    txn_ops(request, ops_max)?;
    overlap::check(&request.success)?;
    overlap::check(&request.failure)
}

fn txn_ops(request: &pb::TxnRequest, ops_max: usize) -> Result<(), Error> {
    let lists = [
        request.compare.len(),
        request.success.len(),
        request.failure.len(),
    ];
    let longest = lists.into_iter().max().unwrap_or(0);
    let Some(left) = ops_max.checked_sub(longest) else {
        return Err(Error::TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete_range(request)?,
            Some(Request::RequestTxn(request)) => txn_ops(request, left)?,
            None => return Err(Error::KeyNotFound),
        }
    }
    Ok(())
}

/// Checks a LeaseGrant.
///
/// # Errors
/// `LeaseTTLTooLarge`.
pub fn lease_grant(request: &pb::LeaseGrantRequest) -> Result<(), Error> {
    if request.ttl > LEASE_TTL_MAX {
        Err(Error::LeaseTTLTooLarge)
    } else {
        Ok(())
    }
}

/// Checks a MemberAdd.
///
/// # Errors
/// `MemberBadURLs`.
pub fn member_add(request: &pb::MemberAddRequest) -> Result<(), Error> {
    peer_urls(&request.peer_ur_ls)
}

/// Checks a MemberUpdate: stricter than etcd, whose members fail on a URL that none can parse.
///
/// # Errors
/// `MemberBadURLs`.
pub fn member_update(request: &pb::MemberUpdateRequest) -> Result<(), Error> {
    peer_urls(&request.peer_ur_ls)
}

/// Checks that there are URLs and that each has a known scheme, a host with a port and no path.
fn peer_urls(urls: &[String]) -> Result<(), Error> {
    if urls.is_empty() || !urls.iter().all(|url| is_peer_url(url)) {
        return Err(Error::MemberBadURLs);
    }
    Ok(())
}

fn is_peer_url(url: &str) -> bool {
    let url = url.trim();
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    if rest.contains(['/', '?', '#', ' ']) {
        return false;
    }
    match scheme {
        "unix" | "unixs" => !rest.is_empty(),
        "http" | "https" => {
            let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            let Some((host, port)) = rest.rsplit_once(':') else {
                return false;
            };
            let bracketed = host.starts_with('[') && host.ends_with(']');
            (bracketed || !host.contains([':', '[', ']'])) && port.parse::<u16>().is_ok()
        }
        _ => false,
    }
}

/// Checks a UserAdd.
///
/// # Errors
/// `UserEmpty`.
pub fn user_add(request: &pb::AuthUserAddRequest) -> Result<(), Error> {
    if request.name.is_empty() {
        Err(Error::UserEmpty)
    } else {
        Ok(())
    }
}

/// Checks a RoleAdd.
///
/// # Errors
/// `RoleEmpty`.
pub fn role_add(request: &pb::AuthRoleAddRequest) -> Result<(), Error> {
    if request.name.is_empty() {
        Err(Error::RoleEmpty)
    } else {
        Ok(())
    }
}

/// Checks a RoleGrantPermission.
///
/// # Errors
/// `PermissionNotGiven`, `InvalidAuthMgmt`.
pub fn role_grant_permission(request: &pb::AuthRoleGrantPermissionRequest) -> Result<(), Error> {
    let perm = request.perm.as_ref().ok_or(Error::PermissionNotGiven)?;
    if is_permission_range(&perm.key, &perm.range_end) {
        Ok(())
    } else {
        Err(Error::InvalidAuthMgmt)
    }
}

/// Whether a permission's range is one key, open, or not empty.
#[must_use]
pub fn is_permission_range(key: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        _ if key.is_empty() => false,
        [] | [0] => true,
        end => key < end,
    }
}

/// Checks the action of a Downgrade.
///
/// # Errors
/// Unknown, with a text of its own.
pub fn downgrade(request: &pb::DowngradeRequest) -> Result<(), Status> {
    match pb::downgrade_request::DowngradeAction::try_from(request.action) {
        Ok(_) => Ok(()),
        Err(_) => Err(Status::new(Code::Unknown, "etcdserver: unknown method")),
    }
}

/// Checks a metadata value that names the client's version.
///
/// # Errors
/// `InvalidClientAPIVersion`.
pub fn client_api_version(value: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(value).map_err(|_| Error::InvalidClientAPIVersion)
}

type Keys<'a> = HashSet<&'a [u8]>;
