//! `restart`: stops the server and starts it again as it was started before, with this program. The
//! new server adopts the running jobs.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Parser;

use super::stop;
use crate::{
    clean,
    cli::{
        Cli, Verb,
        connect::{
            autostart::{self, ServerLaunch},
            client::Client,
            proc::{self, Launched},
            target::DataDir,
        },
        render::{print, shell::shell_word},
    },
    config, escape,
    spool::Layout,
};

/// Options of `restart`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The new server gets the command line, settings and working directory of the old one, but runs \
in the background with its log in the data directory. Restart a server that a service manager \
started with the service manager.")]
pub struct RestartArgs {
    #[command(flatten)]
    dir: DataDir,
}

/// Restarts the server.
pub async fn restart(args: RestartArgs) -> anyhow::Result<ExitCode> {
    let layout = args.dir.layout()?;
    // Before the stop: do not stop a server that could not be started again.
    match crate::launch::shim_above() {
        Some(shim) => tokio::task::spawn_blocking(move || shim.check()).await??,
        None => clean::check_open_files()?,
    }
    let launch = match stop::find(&layout).await? {
        Some(server) if proc::is_container_main(server.pid, &server.launched.argv) => bail!(
            "this server is the main process of a container: the container and its jobs would end with \
             it; restart the container instead"
        ),
        Some(server) => {
            let mut launch = launch_like(&server.launched, &layout);
            check(&mut launch, &layout).context(
                "the old server goes on: this version would not start with its command line and variables",
            )?;
            let pid = server.pid;
            server.stop().await?;
            print_line(&format!(
                "stopped the server of {} (pid {pid})",
                layout.root().display()
            ))?;
            launch
        }
        None => {
            print_line(&format!(
                "no server was running on {}",
                layout.root().display()
            ))?;
            ServerLaunch::default_for(&layout)
        }
    };
    let client = autostart::start(&layout, &launch).await?;
    if is_another(&client, &launch) {
        bail!("another server was started in the meantime; `cc-executor status` shows it");
    }
    let words: Vec<_> = launch
        .args
        .iter()
        .map(|word| shell_word(&word.to_string_lossy()))
        .collect();
    print_line(&format!(
        "started version {} in the background (pid {}): cc-executor {}; its log is {}",
        client.version(),
        client.server_pid().unwrap_or(0),
        words.join(" "),
        layout.log().display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn print_line(text: &str) -> anyhow::Result<()> {
    print::page(&format!("{}\n", escape::visible(text)))
}

/// Whether the server that answers was started in another way: another command line found no server
/// at that moment and was faster.
fn is_another(client: &Client, launch: &ServerLaunch) -> bool {
    let server = client.server_pid().and_then(|pid| proc::argv(pid).ok());
    server.is_some_and(|argv| argv.get(1..) != Some(launch.args.as_slice()))
}

/// Whether this version would start a server with these words, variables and working directory; checked
/// before the stop. A directory that is gone is replaced.
fn check(launch: &mut ServerLaunch, layout: &Layout) -> anyhow::Result<()> {
    let words = ["cc-executor".into()]
        .into_iter()
        .chain(launch.args.iter().cloned());
    let Verb::Serve(args) = Cli::try_parse_from(words)?.verb else {
        bail!("it was not started by `serve`");
    };
    let variable =
        |(name, value): &(OsString, OsString)| Some((name.to_str()?.to_owned(), value.clone()));
    let environment: BTreeMap<_, _> = launch.env.iter().filter_map(variable).collect();
    let named = args.config.or_else(|| config::file_named_in(&environment));
    let mut options = args.settings.0;
    // The command line may name the directory relative to the old server's working directory.
    options.insert("data_dir".to_owned(), layout.root().into());
    let file = named.as_ref().map(|file| launch.cwd.join(file));
    let loaded = config::load_from(file.as_deref(), environment, &options)?;
    loaded.settings.check_listen()?;
    if is_usable(&launch.cwd) {
        return Ok(());
    }
    let relative = named.filter(|file| file.is_relative());
    if let Some(path) = relative.or_else(|| loaded.settings.relative_path()) {
        bail!(
            "its working directory {} is gone, and {} is relative to it; make that directory again, or stop \
             the server and start it with absolute paths",
            launch.cwd.display(),
            path.display()
        );
    }
    launch.cwd = PathBuf::from("/");
    name_data_dir(&mut launch.args, layout);
    Ok(())
}

/// Whether a process can be started in this directory.
fn is_usable(cwd: &Path) -> bool {
    cwd.is_dir() && rustix::fs::access(cwd, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Names the data directory by its absolute path, in the place of whatever names it now.
fn name_data_dir(args: &mut Vec<OsString>, layout: &Layout) {
    const OPTION: &str = "--data-dir";
    let mut named: Vec<OsString> = vec!["serve".into(), OPTION.into(), layout.root().into()];
    let mut rest = args.drain(..).skip(1);
    while let Some(word) = rest.next() {
        if word == OPTION {
            rest.next();
        } else if !word.as_bytes().starts_with(b"--data-dir=") {
            named.push(word);
        }
    }
    drop(rest);
    *args = named;
}

/// The old server's command line, variables and working directory for the new one.
fn launch_like(launched: &Launched, layout: &Layout) -> ServerLaunch {
    let args: Vec<_> = launched.argv.iter().skip(1).cloned().collect();
    // A server that another program embeds has no command line of ours.
    if args.first().is_none_or(|verb| verb != "serve") {
        return ServerLaunch::default_for(layout);
    }
    ServerLaunch {
        args,
        // A server of an earlier version kept all variables of its starter.
        env: clean::environment(launched.env.iter().cloned(), true, config::is_variable),
        cwd: launched.cwd.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launched(words: &[&str]) -> Launched {
        Launched {
            argv: words.iter().map(Into::into).collect(),
            env: vec![("PATH".into(), "/bin".into()), ("A".into(), "b".into())],
            cwd: "/srv".into(),
        }
    }

    #[test]
    fn the_data_directory_is_named_once() {
        let layout = Layout::new("/data");
        for given in [
            &["serve", "--listen", "none"][..],
            &["serve", "--data-dir", "../x", "--listen", "none"],
            &["serve", "--listen", "none", "--data-dir=x"],
        ] {
            let mut args: Vec<OsString> = given.iter().map(Into::into).collect();
            name_data_dir(&mut args, &layout);
            assert_eq!(args, ["serve", "--data-dir", "/data", "--listen", "none"]);
        }
    }

    #[test]
    fn a_server_is_started_as_it_was() {
        let layout = Layout::new("/data");
        let launch = launch_like(
            &launched(&["./cc-executor", "serve", "--listen", "none"]),
            &layout,
        );
        assert_eq!(launch.args, ["serve", "--listen", "none"]);
        assert_eq!(launch.cwd, Path::new("/srv"));
        assert_eq!(launch.env, [("PATH".into(), "/bin".into())]);
        let own = launch_like(&launched(&["something", "else"]), &layout);
        assert!(autostart::was_autostarted(&own.args));
    }
}
