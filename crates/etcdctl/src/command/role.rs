//! role add, delete, get, list, grant-permission, revoke-permission.

use api::pb::authpb::{Permission, permission::Type};
use api::pb::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGrantPermissionRequest,
    AuthRoleListRequest, AuthRoleRevokePermissionRequest,
};
use bytes::Bytes;
use client::prefix_end;

use crate::cli::flags::{Flag, Flags};
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{Failure, Outcome};
use crate::print::Answer;

pub(super) const ROLE: Command = Command {
    name: "role",
    short: "Roles. `etcdctl role --help` lists the sub-commands",
    long: "Roles and what they permit",
    group: group::AUTHENTICATION,
    commands: &[
        Command {
            name: "add",
            usage: "<role name>",
            short: "Adds a role",
            run: Some(|call| Box::pin(add(call))),
            ..Command::EMPTY
        },
        Command {
            name: "delete",
            usage: "<role name>",
            short: "Deletes a role",
            run: Some(|call| Box::pin(delete(call))),
            ..Command::EMPTY
        },
        Command {
            name: "get",
            usage: "<role name>",
            short: "Tells what a role permits",
            run: Some(|call| Box::pin(get(call))),
            ..Command::EMPTY
        },
        Command {
            name: "list",
            short: "Lists the roles",
            run: Some(|call| Box::pin(list(call))),
            ..Command::EMPTY
        },
        Command {
            name: "grant-permission",
            usage: "[options] <role name> <permission type> <key> [endkey]",
            short: "Permits a role to read or write keys",
            flags: &[
                Flag::switch("prefix", "permit all keys that begin with the given one"),
                Flag::switch("from-key", "permit all keys from the given one on"),
            ],
            run: Some(|call| Box::pin(grant_permission(call))),
            ..Command::EMPTY
        },
        Command {
            name: "revoke-permission",
            usage: "<role name> <key> [endkey]",
            short: "Takes a permission from a role",
            flags: &[
                Flag::switch(
                    "prefix",
                    "the permission is for keys that begin with the given one",
                ),
                Flag::switch(
                    "from-key",
                    "the permission is for keys from the given one on",
                ),
            ],
            run: Some(|call| Box::pin(revoke_permission(call))),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

fn one_role(call: &Call, action: &str) -> Result<String, Failure> {
    if call.args.len() != 1 {
        let text = format!("role {action} command requires role name as its argument");
        return Err(Failure::bad_args(text));
    }
    Ok(call.text(0).into_owned())
}

async fn add(mut call: Call) -> Outcome {
    let role = one_role(&call, "add")?;
    let session = Session::new(&mut call)?;
    let client = session.connect().await?;
    let answer = client
        .role_add(AuthRoleAddRequest { name: role.clone() })
        .await?;
    session.printer.print(&Answer::RoleAdd(&role, &answer))
}

async fn delete(mut call: Call) -> Outcome {
    let role = one_role(&call, "delete")?;
    let session = Session::new(&mut call)?;
    let client = session.connect().await?;
    let answer = client
        .role_delete(AuthRoleDeleteRequest { role: role.clone() })
        .await?;
    session.printer.print(&Answer::RoleDelete(&role, &answer))
}

async fn get(mut call: Call) -> Outcome {
    let role = one_role(&call, "get")?;
    let session = Session::new(&mut call)?;
    let client = session.connect().await?;
    let answer = client
        .role_get(AuthRoleGetRequest { role: role.clone() })
        .await?;
    session.printer.print(&Answer::RoleGet(&role, &answer))
}

async fn list(mut call: Call) -> Outcome {
    if !call.args.is_empty() {
        return Err(Failure::bad_args("role list command requires no arguments"));
    }
    let session = Session::new(&mut call)?;
    let answer = session
        .connect()
        .await?
        .role_list(AuthRoleListRequest {})
        .await?;
    session.printer.print(&Answer::RoleList(&answer))
}

async fn grant_permission(mut call: Call) -> Outcome {
    if call.args.len() < 3 {
        let text = "role grant command requires role name, permission type, and key [endkey] as \
                    its argument";
        return Err(Failure::bad_args(text));
    }
    let role = call.text(0).into_owned();
    let kind = match call.text(1).to_uppercase().as_str() {
        "READ" => Type::Read,
        "WRITE" => Type::Write,
        "READWRITE" => Type::Readwrite,
        _ => {
            return Err(Failure::bad_args(format!(
                "invalid permission type: {}",
                call.text(1)
            )));
        }
    };
    let (key, range_end) = range(&call.flags, &call.args[2..])?;
    let session = Session::new(&mut call)?;
    let client = session.connect().await?;
    let perm = Some(Permission {
        perm_type: kind.into(),
        key,
        range_end,
    });
    let request = AuthRoleGrantPermissionRequest {
        name: role.clone(),
        perm,
    };
    let answer = client.role_grant_permission(request).await?;
    session.printer.print(&Answer::RoleGrant(&role, &answer))
}

async fn revoke_permission(mut call: Call) -> Outcome {
    if call.args.len() < 2 {
        let text = "role revoke-permission command requires role name and key [endkey] as its \
                    argument";
        return Err(Failure::bad_args(text));
    }
    let role = call.text(0).into_owned();
    let (key, range_end) = range(&call.flags, &call.args[1..])?;
    let session = Session::new(&mut call)?;
    let client = session.connect().await?;
    let request = AuthRoleRevokePermissionRequest {
        role: role.clone(),
        key,
        range_end: range_end.clone(),
    };
    let answer = client.role_revoke_permission(request).await?;
    session.printer.print(&Answer::RoleRevoke(
        &role,
        &call.args[1],
        &range_end,
        &answer,
    ))
}

/// The range that a permission is about. An empty key begins at the smallest possible one.
fn range(flags: &Flags, args: &[Bytes]) -> Result<(Bytes, Bytes), Failure> {
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    let open = Bytes::from_static(b"\0");
    let key = &args[0];
    let exclusive = || Failure::bad_args("--from-key and --prefix flags are mutually exclusive");
    if key.is_empty() {
        return match (prefix, from_key) {
            (true, true) => Err(exclusive()),
            (false, false) => Ok((open, Bytes::new())),
            _ => Ok((open.clone(), open)),
        };
    }
    let end = match (args.get(1), prefix, from_key) {
        (None, true, true) => return Err(exclusive()),
        (None, true, false) => prefix_end(key),
        (None, false, true) => open,
        (None, false, false) => Bytes::new(),
        (Some(_), true, _) => {
            return Err(Failure::bad_args(
                "unexpected endkey argument with --prefix flag",
            ));
        }
        (Some(_), false, true) => {
            return Err(Failure::bad_args(
                "unexpected endkey argument with --from-key flag",
            ));
        }
        (Some(end), false, false) => end.clone(),
    };
    Ok((key.clone(), end))
}
