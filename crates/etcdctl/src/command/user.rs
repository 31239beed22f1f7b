//! user add, delete, get, list, passwd, grant-role, revoke-role.

use api::pb::authpb::UserAddOptions;
use api::pb::etcdserverpb::{
    AuthRoleGetRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
    AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
};

use crate::cli::flags::{Flag, Kind};
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{Failure, Outcome};
use crate::print::Answer;
use crate::{out, prompt};

const INTERACTIVE: Flag = Flag {
    kind: Kind::Bool,
    ..Flag::text(
        "interactive",
        "true",
        "ask for the password; false reads one word instead",
    )
};

pub(super) const USER: Command = Command {
    name: "user",
    short: "Users. `etcdctl user --help` lists the sub-commands",
    long: "Users",
    group: group::AUTHENTICATION,
    commands: &[
        Command {
            name: "add",
            usage: "<user name or user:password> [options]",
            short: "Adds a user",
            flags: &[
                INTERACTIVE,
                Flag::text(
                    "new-user-password",
                    "",
                    "the password, instead of asking for it",
                ),
                Flag::switch("no-password", "add a user that only certificates can prove"),
            ],
            run: Some(|call| Box::pin(add(call))),
            ..Command::EMPTY
        },
        Command {
            name: "delete",
            usage: "<user name>",
            short: "Deletes a user",
            run: Some(|call| Box::pin(delete(call))),
            ..Command::EMPTY
        },
        Command {
            name: "get",
            usage: "<user name> [options]",
            short: "Tells which roles a user has",
            flags: &[Flag::switch("detail", "also print what the roles permit")],
            run: Some(|call| Box::pin(get(call))),
            ..Command::EMPTY
        },
        Command {
            name: "list",
            short: "Lists the users",
            run: Some(|call| Box::pin(list(call))),
            ..Command::EMPTY
        },
        Command {
            name: "passwd",
            usage: "<user name> [options]",
            short: "Changes a user's password",
            flags: &[INTERACTIVE],
            run: Some(|call| Box::pin(passwd(call))),
            ..Command::EMPTY
        },
        Command {
            name: "grant-role",
            usage: "<user name> <role name>",
            short: "Gives a user a role",
            run: Some(|call| Box::pin(grant_role(call))),
            ..Command::EMPTY
        },
        Command {
            name: "revoke-role",
            usage: "<user name> <role name>",
            short: "Takes a role from a user",
            run: Some(|call| Box::pin(revoke_role(call))),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

fn arguments(call: &Call, count: usize, complaint: &str) -> Outcome {
    if call.args.len() == count {
        Ok(())
    } else {
        Err(Failure::bad_args(complaint))
    }
}

async fn add(mut call: Call) -> Outcome {
    arguments(
        &call,
        1,
        "user add command requires user name as its argument",
    )?;
    let given = call.text(0).into_owned();
    let no_password = call.flags.bool("no-password");
    let from_flag = call.flags.text("new-user-password").to_owned();
    let (name, password) = match given.split_once(':') {
        _ if no_password => (given.as_str(), String::new()),
        _ if !from_flag.is_empty() => (given.as_str(), from_flag),
        Some(("", _)) => return Err(Failure::bad_args("empty user name is not allowed")),
        Some((name, password)) => (name, password.to_owned()),
        None => (given.as_str(), ask(&call, &given)?),
    };
    let session = Session::new(&mut call)?;
    let client = session.connect().await?;
    let request = AuthUserAddRequest {
        name: name.to_owned(),
        password,
        options: Some(UserAddOptions { no_password }),
        ..AuthUserAddRequest::default()
    };
    let answer = client.user_add(request).await?;
    session.printer.print(&Answer::UserAdd(name, &answer))
}

async fn delete(mut call: Call) -> Outcome {
    arguments(
        &call,
        1,
        "user delete command requires user name as its argument",
    )?;
    let session = Session::new(&mut call)?;
    let name = call.text(0).into_owned();
    let client = session.connect().await?;
    let answer = client
        .user_delete(AuthUserDeleteRequest { name: name.clone() })
        .await?;
    session.printer.print(&Answer::UserDelete(&name, &answer))
}

async fn get(mut call: Call) -> Outcome {
    arguments(
        &call,
        1,
        "user get command requires user name as its argument",
    )?;
    let session = Session::new(&mut call)?;
    let name = call.text(0).into_owned();
    let client = session.connect().await?;
    let answer = client
        .user_get(AuthUserGetRequest { name: name.clone() })
        .await?;
    if !call.flags.bool("detail") {
        return session.printer.print(&Answer::UserGet(&name, &answer));
    }
    out::line(&format!("User: {name}"));
    for role in answer.roles {
        out::line("");
        let answer = client
            .role_get(AuthRoleGetRequest { role: role.clone() })
            .await?;
        session.printer.print(&Answer::RoleGet(&role, &answer))?;
    }
    Ok(())
}

async fn list(mut call: Call) -> Outcome {
    arguments(&call, 0, "user list command requires no arguments")?;
    let session = Session::new(&mut call)?;
    let answer = session
        .connect()
        .await?
        .user_list(AuthUserListRequest {})
        .await?;
    session.printer.print(&Answer::UserList(&answer))
}

async fn passwd(mut call: Call) -> Outcome {
    arguments(
        &call,
        1,
        "user passwd command requires user name as its argument",
    )?;
    let name = call.text(0).into_owned();
    let password = ask(&call, &name)?;
    let session = Session::new(&mut call)?;
    let client = session.connect().await?;
    let request = AuthUserChangePasswordRequest {
        name,
        password,
        ..AuthUserChangePasswordRequest::default()
    };
    let answer = client.user_change_password(request).await?;
    session.printer.print(&Answer::UserPassword(&answer))
}

async fn grant_role(mut call: Call) -> Outcome {
    let complaint = "user grant command requires user name and role name as its argument";
    arguments(&call, 2, complaint)?;
    let session = Session::new(&mut call)?;
    let (user, role) = (call.text(0).into_owned(), call.text(1).into_owned());
    let client = session.connect().await?;
    let request = AuthUserGrantRoleRequest {
        user: user.clone(),
        role: role.clone(),
    };
    let answer = client.user_grant_role(request).await?;
    session
        .printer
        .print(&Answer::UserGrant(&user, &role, &answer))
}

async fn revoke_role(mut call: Call) -> Outcome {
    let complaint = "user revoke-role requires user name and role name as its argument";
    arguments(&call, 2, complaint)?;
    let session = Session::new(&mut call)?;
    let (name, role) = (call.text(0).into_owned(), call.text(1).into_owned());
    let client = session.connect().await?;
    let request = AuthUserRevokeRoleRequest {
        name: name.clone(),
        role: role.clone(),
    };
    let answer = client.user_revoke_role(request).await?;
    session
        .printer
        .print(&Answer::UserRevoke(&name, &role, &answer))
}

/// Asks twice for a password, or reads one word of standard input.
fn ask(call: &Call, name: &str) -> Result<String, Failure> {
    if !call.flags.bool("interactive") {
        let mut line = String::new();
        // No word is an empty password, which the server judges.
        let _read = std::io::stdin().read_line(&mut line);
        return Ok(line
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned());
    }
    let ask = |text: &str| {
        prompt::password(text)
            .map_err(|why| Failure::bad_args(format!("failed to ask password: {why}")))
    };
    let password = ask(&format!("Password of {name}: "))?;
    if password.is_empty() {
        return Err(Failure::bad_args("empty password"));
    }
    let again = ask(&format!("Type password of {name} again for confirmation: "))?;
    match password == again {
        true => Ok(password),
        false => Err(Failure::bad_args("given passwords are different")),
    }
}
