//! Scripts that complete commands and flags in shells, made from the table of commands.

use super::{Command, Program};

/// The script for a shell, or `None` for a shell that nobody knows.
#[must_use]
pub fn script<T>(program: &Program<T>, shell: &str) -> Option<String> {
    let globals = globals(program);
    let lists = lists(program);
    script_of(program.root.name, shell, &globals, &lists)
}

fn globals<T>(program: &Program<T>) -> Vec<String> {
    let flags = program.globals.iter();
    flags.map(|flag| format!("--{}", flag.name)).collect()
}

/// What may follow each command of a program, by the command's path.
#[must_use]
pub fn lists<T>(program: &Program<T>) -> Vec<(String, Vec<String>)> {
    let mut lists = Vec::new();
    add_lists(&program.root, "", &[], &globals(program), &mut lists);
    lists
}

/// The script for a program that has flags of its own beside such a table: for each path of
/// commands (`""`, `"gateway"`, `"gateway start"`) what may follow, and the flags that every
/// command takes. `None` for a shell that nobody knows.
#[must_use]
pub fn script_of(
    name: &str,
    shell: &str,
    globals: &[String],
    lists: &[(String, Vec<String>)],
) -> Option<String> {
    match shell {
        "bash" => Some(bash(name, lists)),
        "zsh" => Some(zsh(name, lists)),
        "fish" => Some(fish(name, globals, lists)),
        "powershell" => Some(powershell(name, lists)),
        _ => None,
    }
}

/// Adds for each command, by its path (`""`, `"lease"`, `"lease grant"`): what may follow.
fn add_lists<T>(
    command: &Command<T>,
    path: &str,
    inherited: &[String],
    globals: &[String],
    lists: &mut Vec<(String, Vec<String>)>,
) {
    let own: Vec<_> = command
        .flags
        .iter()
        .map(|flag| format!("--{}", flag.name))
        .collect();
    let mut words: Vec<_> = command.shown().map(|child| child.name.to_owned()).collect();
    words.extend(own.iter().chain(inherited).cloned());
    words.push("--help".to_owned());
    words.extend_from_slice(globals);
    lists.push((path.to_owned(), words));
    let inherited = if command.inherit_flags {
        own
    } else {
        Vec::new()
    };
    for child in command.shown() {
        let path = if path.is_empty() {
            child.name.to_owned()
        } else {
            format!("{path} {}", child.name)
        };
        add_lists(child, &path, &inherited, globals, lists);
    }
}

/// `case` branches that set `words` for the command in `$spot`.
fn cases(lists: &[(String, Vec<String>)]) -> String {
    lists
        .iter()
        .map(|(path, words)| format!("    \"{path}\") words=\"{}\" ;;\n", words.join(" ")))
        .collect()
}

/// Collects the commands before the cursor in `$spot`, as far as they are known.
const FOLLOW: &str = "\
  for word in \"${before[@]}\"; do
    case \"$word\" in
      -*) continue ;;
    esac
    next=\"${spot:+$spot }$word\"
    case \"$known\" in
      *\"|$next|\"*) spot=\"$next\" ;;
    esac
  done
";

fn known(lists: &[(String, Vec<String>)]) -> String {
    lists.iter().map(|(path, _)| format!("|{path}|")).collect()
}

fn bash(name: &str, lists: &[(String, Vec<String>)]) -> String {
    format!(
        "# bash completion for {name}                              -*- shell-script -*-\n\n\
         _{name}() {{\n  local spot= next= word words= known='{}'\n  \
         local before=(\"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\")\n{FOLLOW}  \
         case \"$spot\" in\n{}  esac\n  \
         COMPREPLY=($(compgen -W \"$words\" -- \"${{COMP_WORDS[COMP_CWORD]}}\"))\n}}\n\n\
         complete -o default -F _{name} {name}\n",
        known(lists),
        cases(lists),
    )
}

fn zsh(name: &str, lists: &[(String, Vec<String>)]) -> String {
    format!(
        "#compdef {name}\n\n\
         _{name}() {{\n  local spot= next= word words= known='{}'\n  \
         local -a before=(\"${{(@)${{(z)BUFFER}}[2,-2]}}\")\n{FOLLOW}  \
         case \"$spot\" in\n{}  esac\n  compadd -- ${{=words}}\n}}\n\n\
         compdef _{name} {name}\n",
        known(lists),
        cases(lists),
    )
}

fn fish(name: &str, globals: &[String], lists: &[(String, Vec<String>)]) -> String {
    let mut out = format!("# fish completion for {name}\n\ncomplete -c {name} -f\n");
    for (path, words) in lists {
        let commands: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
        let condition = match path.as_str() {
            "" => "__fish_use_subcommand".to_owned(),
            path => {
                let seen: Vec<_> = path
                    .split(' ')
                    .map(|word| format!("__fish_seen_subcommand_from {word}"))
                    .collect();
                seen.join("; and ")
            }
        };
        for command in commands {
            out.push_str(&format!(
                "complete -c {name} -n '{condition}' -a {command}\n"
            ));
        }
        for flag in words.iter().filter_map(|word| word.strip_prefix("--")) {
            if !path.is_empty() && globals.iter().any(|global| global[2..] == *flag) {
                continue;
            }
            let condition = if path.is_empty() { "true" } else { &condition };
            out.push_str(&format!("complete -c {name} -n '{condition}' -l {flag}\n"));
        }
    }
    out
}

fn powershell(name: &str, lists: &[(String, Vec<String>)]) -> String {
    let entries: String = lists
        .iter()
        .map(|(path, words)| format!("    '{path}' = '{}'\n", words.join(" ")))
        .collect();
    format!(
        "# powershell completion for {name}\n\n\
         Register-ArgumentCompleter -Native -CommandName {name} -ScriptBlock {{\n  \
         param($wordToComplete, $commandAst, $cursorPosition)\n  $lists = @{{\n{entries}  }}\n  \
         $path = ''\n  \
         foreach ($element in $commandAst.CommandElements | Select-Object -Skip 1) {{\n    \
         $next = (\"$path \" + $element.ToString()).Trim()\n    \
         if ($lists.ContainsKey($next)) {{ $path = $next }}\n  }}\n  \
         $lists[$path].Split(' ') | Where-Object {{ $_ -like \"$wordToComplete*\" }} |\n    \
         ForEach-Object {{ [System.Management.Automation.CompletionResult]::new($_) }}\n}}\n"
    )
}
