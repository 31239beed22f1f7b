//! The words that may follow `etcd` instead of flags: `gateway`, `grpc-proxy`, and what packages are made with.

use std::path::Path;
use std::process::ExitCode;

use bytes::Bytes;
use cli::flags::{Flag, Kind};
use cli::manual::Writer;
use cli::{Program, completion, text};

use crate::config;
use crate::grpc_proxy;
use crate::tcp_proxy;

type Command = cli::Command<ExitCode>;
type Call = cli::Call<ExitCode>;

static PROGRAM: Program<ExitCode> = Program {
    root: Command {
        name: "etcd",
        short: "A member of an etcd cluster",
        commands: &[GATEWAY, GRPC_PROXY, COMPLETION, MANUAL],
        ..Command::EMPTY
    },
    globals: &[],
    shows_globals: true,
    groups: &[],
};

const GATEWAY: Command = Command {
    name: "gateway",
    usage: "<subcommand>",
    short: "Passes connections on to a cluster",
    commands: &[Command {
        name: "start",
        short: "Starts the gateway",
        long: "\
Listens for TCP connections and passes each on to one of the endpoints, in turn. An endpoint that
takes no connection is left out until it does again, which is looked at every --retry-delay. What
goes through is not looked at: TLS is between the client and the member.
",
        flags: &[
            Flag::text("listen-addr", "127.0.0.1:23790", "address to listen on"),
            Flag {
                kind: Kind::List,
                ..Flag::text("endpoints", "127.0.0.1:2379", "addresses of the members")
            },
            Flag {
                kind: Kind::Duration,
                ..Flag::text(
                    "retry-delay",
                    "1m0s",
                    "pause before a failed endpoint is tried again",
                )
            },
            Flag::text(
                "discovery-srv",
                "",
                "domain whose SRV records name the endpoints",
            ),
            Flag::text(
                "discovery-srv-name",
                "",
                "suffix of the service name in those records",
            ),
            Flag::switch(
                "insecure-discovery",
                "use discovered endpoints without a look at their TLS",
            ),
            Flag::text(
                "trusted-ca-file",
                "",
                "authorities of the discovered endpoints",
            ),
        ],
        run: Some(|call| tcp_proxy::main(&call.flags)),
        ..Command::EMPTY
    }],
    ..Command::EMPTY
};

const GRPC_PROXY: Command = Command {
    name: "grpc-proxy",
    usage: "<subcommand>",
    short: "Serves many clients with few connections to a cluster",
    commands: &[Command {
        name: "start",
        short: "Starts the gRPC proxy",
        long: "\
Speaks etcd's API with clients and with the members. Watches of the same keys share one watch at a
member, renewals of a lease share one stream, and serializable reads are answered from a cache.
Clients see the proxies as the members of the cluster.
",
        flags: proxy::FLAGS,
        run: Some(|call| grpc_proxy::main(&call.flags)),
        ..Command::EMPTY
    }],
    ..Command::EMPTY
};

/// Packages are made with it.
const COMPLETION: Command = Command {
    name: "completion",
    usage: "<shell>",
    short: "Prints a script that completes flags in a shell",
    is_hidden: true,
    run: Some(complete),
    ..Command::EMPTY
};

/// Packages are made with it.
const MANUAL: Command = Command {
    name: "manual",
    usage: "<directory>",
    short: "Writes the pages of the manual",
    is_hidden: true,
    run: Some(manual),
    ..Command::EMPTY
};

/// Runs the sub-command that the words name; `None` when they name none.
#[must_use]
pub(crate) fn run(words: &[String]) -> Option<ExitCode> {
    let first = words.first()?;
    PROGRAM
        .root
        .commands
        .iter()
        .find(|command| command.name == *first)?;
    let words = words.iter().map(|word| Bytes::from(word.clone())).collect();
    Some(match cli::read(&PROGRAM, words) {
        Ok(cli::Request::Help(text)) => {
            cli::out::text(&text);
            ExitCode::SUCCESS
        }
        Ok(cli::Request::Run(call, run)) => run(call),
        Err(misuse) => fail(&misuse),
    })
}

fn fail(misuse: &cli::Misuse) -> ExitCode {
    misuse.report();
    ExitCode::FAILURE
}

fn complete(call: Call) -> ExitCode {
    if let Err(misuse) = call.expect_args(1) {
        return fail(&misuse);
    }
    let shell = call.text(0);
    let flags = config::help::listed().map(|flag| format!("--{}", flag.name));
    let mut lists = completion::lists(call.program);
    // The first is the program itself.
    lists[0].1.extend(flags);
    match completion::script_of("etcd", &shell, &[], &lists) {
        Some(script) => {
            cli::out::text(&script);
            ExitCode::SUCCESS
        }
        None => fail(&call.misuse(&format!(
            "invalid argument {shell:?} for \"etcd completion\""
        ))),
    }
}

fn manual(call: Call) -> ExitCode {
    if let Err(misuse) = call.expect_args(1) {
        return fail(&misuse);
    }
    let directory = call.text(0);
    let directory = Path::new(&*directory);
    let pages = cli::manual::pages(call.program, 8);
    // The program's own page is about its flags.
    let pages = pages.into_iter().skip(1).map(|page| (page.file, page.text));
    let pages = pages.chain([("etcd.8".to_owned(), own_page())]);
    let write = || {
        std::fs::create_dir_all(directory)?;
        pages
            .into_iter()
            .try_for_each(|(file, text)| std::fs::write(directory.join(file), text))
    };
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let why = text::io_error(&error);
            fail(&call.misuse(&format!("{}: {why}", directory.display())))
        }
    }
}

fn own_page() -> String {
    let mut page = Writer::new("etcd", 8, PROGRAM.root.short);
    page.heading("SYNOPSIS");
    page.command("etcd", "[flags]");
    page.command("etcd gateway start", "[flags]");
    page.command("etcd grpc-proxy start", "[flags]");
    page.heading("DESCRIPTION");
    page.paragraph(
        "Runs a member of an etcd cluster. Settings come from flags, from variables (--some-flag is \
         ETCD_SOME_FLAG), or from the file that --config-file names, which then is the only source.",
    );
    for section in config::help::sections() {
        page.heading(&section.title().to_uppercase());
        for flag in config::help::listed().filter(|flag| flag.section == section) {
            let term = format!("--{} '{}'", flag.name, config::help::shown_default(flag));
            page.item(&term, &format!("{}{}", flag.help, config::help::note(flag)));
        }
    }
    page.heading("SEE ALSO");
    page.paragraph("etcd-gateway(8), etcd-grpc-proxy(8), etcdctl(1), etcdutl(1)");
    page.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_flag() {
        let page = own_page();
        for flag in config::help::listed() {
            let term = format!("--{} '", flag.name).replace('-', "\\-");
            assert!(page.contains(&term), "{}", flag.name);
        }
    }

    #[test]
    fn other_words_are_no_sub_commands() {
        let words = |text: &str| vec![text.to_owned()];
        assert!(run(&[]).is_none());
        assert!(run(&words("gate")).is_none());
        assert!(run(&words("--name=gateway")).is_none());
    }
}
