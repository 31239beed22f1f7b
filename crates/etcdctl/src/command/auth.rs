//! auth enable, disable, status.

use api::pb::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthStatusRequest,
    AuthUserGrantRoleRequest,
};

use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{Failure, Outcome};
use crate::out;
use crate::print::Answer;

pub(super) const AUTH: Command = Command {
    name: "auth",
    short: "Authentication. `etcdctl auth --help` lists the sub-commands",
    long: "Whether clients have to authenticate",
    group: group::AUTHENTICATION,
    commands: &[
        Command {
            name: "enable",
            short: "Demands authentication from now on",
            run: Some(|call| Box::pin(enable(call))),
            ..Command::EMPTY
        },
        Command {
            name: "disable",
            short: "Demands no authentication any more",
            run: Some(|call| Box::pin(disable(call))),
            ..Command::EMPTY
        },
        Command {
            name: "status",
            short: "Tells whether authentication is demanded",
            run: Some(|call| Box::pin(status(call))),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

fn no_arguments(call: &Call, action: &str) -> Outcome {
    if call.args.is_empty() {
        return Ok(());
    }
    let text = format!("auth {action} command does not accept any arguments");
    Err(Failure::bad_args(text))
}

/// Makes the role `root` and gives it to the user `root` where that is all that is missing.
async fn enable(mut call: Call) -> Outcome {
    no_arguments(&call, "enable")?;
    let session = Session::new(&mut call)?;
    let client = session.connect_limited().await?;
    let root = || "root".to_owned();
    while let Err(error) = client.auth_enable(AuthEnableRequest {}).await {
        if !error.is(api::Error::RootRoleNotExist) {
            return Err(error.into());
        }
        client.role_add(AuthRoleAddRequest { name: root() }).await?;
        client
            .user_grant_role(AuthUserGrantRoleRequest {
                user: root(),
                role: root(),
            })
            .await?;
    }
    out::line("Authentication Enabled");
    Ok(())
}

async fn disable(mut call: Call) -> Outcome {
    no_arguments(&call, "disable")?;
    let session = Session::new(&mut call)?;
    session
        .connect_limited()
        .await?
        .auth_disable(AuthDisableRequest {})
        .await?;
    out::line("Authentication Disabled");
    Ok(())
}

async fn status(mut call: Call) -> Outcome {
    no_arguments(&call, "status")?;
    let session = Session::new(&mut call)?;
    let answer = session
        .connect_limited()
        .await?
        .auth_status(AuthStatusRequest {})
        .await?;
    session.printer.print(&Answer::AuthStatus(&answer))
}
