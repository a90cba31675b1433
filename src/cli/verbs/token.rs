//! `token`: prints the administrator's token of a data directory; makes, lists, revokes, replaces and
//! narrows tokens with scopes.

use std::{io::Read, process::ExitCode};

use anyhow::{Context, bail};
use chrono::DateTime;
use clap::Args;
use comfy_table::Table;
use serde_json::{Map, Value, json};

use crate::{
    access::{Caveat, Rate, Scope, Scopes, WireToken, wire},
    cli::{
        connect::{
            filter::pairs,
            link::{self, Link, VersionNotice},
            target::Connect,
        },
        render::{
            duration, exit_code,
            print::{self, PrintOptions},
            times::{self, Clock},
        },
    },
    data_dir::OwnDir,
    escape::visible,
    job::{Micros, Seconds},
    protocol::auth::Token,
    sys::{clock, waiting_io::WaitingIo},
};

/// Options of `token`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without a subcommand it prints the administrator's token, which is in the file `token` of the data \
directory and may do everything. Scopes: read, read.secrets, submit, control, input, queues, admin. \
The text of a new token is printed once and stored nowhere.

Example: a token for a build machine, for one queue and thirty days:
  cc-executor token create --name ci --scope submit,read --queue ci --expires 30d > ci.token")]
pub struct TokenArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    #[command(subcommand)]
    command: Option<TokenCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum TokenCommand {
    /// Make a token, and print it
    Create(CreateOptions),
    /// List tokens, without their texts
    #[command(visible_alias = "list")]
    Ls {
        /// Also those that were revoked
        #[arg(long)]
        all: bool,
    },
    /// End tokens; sessions that use them are closed
    Revoke {
        /// Names of the tokens
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Replace a token's text, and print it; sessions that use the old one are closed
    Rotate {
        /// Name of the token; `admin` is the one in the file
        #[arg(value_name = "NAME")]
        name: String,
        /// When the new one expires: a length of time such as 30d, or a time
        #[arg(long, value_name = "WHEN", value_parser = expiry)]
        expires: Option<Micros>,
    },
    /// Take rights away from a token that you hold, and print the narrower one; asks no server
    Narrow(NarrowOptions),
}

/// What a token is narrowed by.
#[derive(Debug, Args)]
struct Restrictions {
    /// Only jobs that the token has submitted itself
    #[arg(long)]
    own: bool,

    /// Only this queue; may be given several times
    #[arg(long = "queue", value_name = "QUEUE")]
    queues: Vec<String>,

    /// Only jobs with this label; may be given several times
    #[arg(long = "label", value_name = "K=V")]
    labels: Vec<String>,

    /// At most so many new jobs in a time, such as 60/m (s, m, h, d)
    #[arg(long, value_name = "JOBS/UNIT", value_parser = rate)]
    rate: Option<Rate>,

    /// When it expires: a length of time such as 30d, or a time
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    expires: Option<Micros>,
}

#[derive(Debug, Args)]
struct CreateOptions {
    /// Name of the token
    #[arg(long)]
    name: String,

    /// Scopes, with commas between them; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',', required = true, value_parser = scope)]
    scopes: Vec<Scope>,

    #[command(flatten)]
    restrictions: Restrictions,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The token is read from --token-file, from CC_EXECUTOR_TOKEN or CC_EXECUTOR_TOKEN_FILE, or from standard input. \
What is taken away cannot be given back to the narrower token, by anybody.")]
struct NarrowOptions {
    /// Only these scopes, with commas between them
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',', value_parser = scope)]
    scopes: Vec<Scope>,

    #[command(flatten)]
    restrictions: Restrictions,
}

fn scope(text: &str) -> Result<Scope, String> {
    let unknown = || format!("there is no scope {text:?}; there are {}", Scope::names());
    Scope::from_name(text).ok_or_else(unknown)
}

fn rate(text: &str) -> Result<Rate, String> {
    let wrong = || format!("{text:?} is no rate; write 60/m: jobs per s, m, h or d");
    Rate::parse(text).ok_or_else(wrong)
}

/// A time, or a length of time from now on.
fn expiry(text: &str) -> Result<Micros, String> {
    if let Some(at) = Micros::from_rfc3339(text) {
        return Ok(at);
    }
    let seconds = duration::parse(text).map_err(|_| {
        format!(
            "{text:?} is neither a length of time (90s, 2h, 30d) nor a time (2026-11-22T10:00:00Z)"
        )
    })?;
    if seconds > Seconds::MAX {
        return Err(format!("{text:?} is longer than ten years"));
    }
    Ok(clock::now().after(Seconds(seconds)))
}

/// Runs the subcommand; prints the administrator's token if there is none.
pub async fn token(args: TokenArgs) -> anyhow::Result<ExitCode> {
    let Some(command) = &args.command else {
        return print_admin(&args.connect);
    };
    if let TokenCommand::Narrow(options) = command {
        return narrow(&args, options);
    }
    let mut link = link::open_always(args.connect.target()?, VersionNotice::Always).await?;
    match command {
        TokenCommand::Create(options) => {
            let made = link.request("token.create", &options.params()?).await?;
            args.tell(&made)
        }
        TokenCommand::Ls { all } => {
            let listed = link.request("token.list", &json!({"all": all})).await?;
            args.list(&listed)
        }
        TokenCommand::Revoke { names } => revoke(&mut link, names).await,
        TokenCommand::Rotate { name, expires } => {
            let mut params = json!({"name": name});
            if let Some(at) = expires {
                params["expires_at"] = json!(at);
            }
            let rotated = link.request("token.rotate", &params).await?;
            args.tell(&rotated)
        }
        TokenCommand::Narrow(_) => Ok(ExitCode::SUCCESS),
    }
}

/// Prints the administrator's token and nothing else.
fn print_admin(connect: &Connect) -> anyhow::Result<ExitCode> {
    let path = connect.layout()?.root().to_owned();
    let missing = || {
        format!(
            "there is no token in {}; `cc-executor serve` creates it at its first start",
            path.display()
        )
    };
    let directory = OwnDir::open(&path)?.with_context(missing)?;
    let token = Token::load(&directory)?.with_context(missing)?;
    print::out(format!("{}\n", token.secret()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn revoke(link: &mut Link, names: &[String]) -> anyhow::Result<ExitCode> {
    let mut code = exit_code::SUCCESS;
    for name in names {
        let params = json!({"name": name});
        if let Err(error) = link.request("token.revoke", &params).await {
            print::line(&format!("{name}: {error:#}"));
            code = exit_code::FAILURE;
        }
    }
    Ok(ExitCode::from(code))
}

/// Appends the restrictions to the token that was given.
fn narrow(args: &TokenArgs, options: &NarrowOptions) -> anyhow::Result<ExitCode> {
    let text = match args.connect.own_token()? {
        Some(token) => token.0,
        None => {
            let mut text = String::new();
            let most = wire::TEXT_BYTES_MAX as u64 + 2;
            let stdin = WaitingIo(std::io::stdin());
            stdin.take(most).read_to_string(&mut text)?;
            text
        }
    };
    let mut token = WireToken::parse(text.trim()).with_context(|| {
        format!(
            "this is no token with scopes, or not a whole one: they begin with {}; the administrator's cannot \
             be narrowed, `cc-executor token create` makes one that can",
            wire::PREFIX
        )
    })?;
    let caveats = options.caveats()?;
    if caveats.is_empty() {
        bail!("nothing is taken away; give --scope, --own, --queue, --label, --rate or --expires");
    }
    for caveat in &caveats {
        Caveat::read(&caveat.text())?;
        token = token.narrowed(caveat)?;
    }
    let caveats: Vec<Value> = token
        .caveats()
        .iter()
        .filter_map(|text| serde_json::from_str(text).ok())
        .collect();
    args.tell(&json!({"secret": token.text(), "restrictions": caveats}))
}

impl TokenArgs {
    /// Prints a token's text.
    fn tell(&self, made: &Value) -> anyhow::Result<ExitCode> {
        if self.print.json {
            print::json(made)?;
        } else {
            let text = made["secret"].as_str().unwrap_or_default();
            print::page(&format!("{}\n", visible(text)))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn list(&self, listed: &Value) -> anyhow::Result<ExitCode> {
        let none = Vec::new();
        let tokens = listed["tokens"].as_array().unwrap_or(&none);
        if self.print.json {
            print::json(&listed["tokens"])?;
        } else if tokens.is_empty() {
            print::line_on_terminal("no tokens; `cc-executor token create` makes one");
        } else {
            print::page(&table(tokens))?;
        }
        if let Some(more) = listed["more"].as_u64().filter(|more| *more > 0) {
            print::line(&format!("{more} older ones are not shown"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl CreateOptions {
    fn params(&self) -> anyhow::Result<Value> {
        let mut params = Map::from_iter([
            ("name".to_owned(), json!(self.name)),
            ("scopes".to_owned(), json!(Scopes::of(&self.scopes).names())),
        ]);
        let restrictions = &self.restrictions;
        if restrictions.own {
            params.insert("own".into(), json!(true));
        }
        if !restrictions.queues.is_empty() {
            params.insert("queues".into(), json!(restrictions.queues));
        }
        let labels = pairs(&restrictions.labels)?;
        if !labels.is_empty() {
            params.insert("labels".into(), Value::Object(labels));
        }
        if let Some(rate) = restrictions.rate {
            params.insert("rate".into(), json!(rate.to_string()));
        }
        if let Some(at) = restrictions.expires {
            params.insert("expires_at".into(), json!(at));
        }
        Ok(Value::Object(params))
    }
}

impl NarrowOptions {
    fn caveats(&self) -> anyhow::Result<Vec<Caveat>> {
        let mut all = Vec::new();
        if !self.scopes.is_empty() {
            all.push(Caveat::Scopes(Scopes::of(&self.scopes)));
        }
        let restrictions = &self.restrictions;
        if restrictions.own {
            all.push(Caveat::Own);
        }
        if !restrictions.queues.is_empty() {
            all.push(Caveat::Queues(
                restrictions.queues.iter().cloned().collect(),
            ));
        }
        for (key, value) in pairs(&restrictions.labels)? {
            all.push(Caveat::Label(
                key,
                value.as_str().unwrap_or_default().to_owned(),
            ));
        }
        all.extend(restrictions.rate.map(Caveat::Rate));
        all.extend(restrictions.expires.map(Caveat::Expires));
        Ok(all)
    }
}

/// Tokens as text, one line each below a headline.
fn table(tokens: &[Value]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["NAME", "STATE", "SCOPES", "ONLY", "CREATED", "EXPIRES"]);
    table.add_rows(tokens.iter().map(row));
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(token: &Value) -> [String; 6] {
    let text = |value: &Value| visible(value.as_str().unwrap_or_default()).to_string();
    let list = |value: &Value| {
        let words = value.as_array().into_iter().flatten().map(text);
        words.collect::<Vec<_>>().join(",")
    };
    let mut only = Vec::new();
    if token["own"] == true {
        only.push("own jobs".to_owned());
    }
    if token["queues"].is_array() {
        only.push(format!("queue {}", list(&token["queues"])));
    }
    for (key, value) in token["labels"].as_object().into_iter().flatten() {
        only.push(format!("label {}={}", visible(key), text(value)));
    }
    if token["rates"]
        .as_array()
        .is_some_and(|rates| !rates.is_empty())
    {
        only.push(list(&token["rates"]));
    }
    let moment = |value: &Value| {
        let at = value
            .as_str()
            .and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        at.map(|at| times::short(at.to_utc(), times::now(), Clock::Local))
    };
    [
        text(&token["name"]),
        text(&token["state"]),
        list(&token["scopes"]),
        only.join(", "),
        moment(&token["created_at"]).unwrap_or_default(),
        moment(&token["expires_at"]).unwrap_or_else(|| "never".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        token: TokenArgs,
    }

    fn command(words: &[&str]) -> Option<TokenCommand> {
        let words = ["token"].iter().chain(words);
        Line::try_parse_from(words).ok()?.token.command
    }

    #[test]
    fn options_become_a_request() {
        let words = [
            "create",
            "--name",
            "ci",
            "--scope",
            "submit,read",
            "--queue",
            "ci",
            "--label",
            "a=b",
            "--own",
            "--rate",
            "5/h",
            "--expires",
            "2100-01-01T00:00:00Z",
        ];
        let Some(TokenCommand::Create(options)) = command(&words) else {
            panic!("not read");
        };
        let expected = json!({
            "name": "ci", "scopes": ["read", "submit"], "queues": ["ci"], "labels": {"a": "b"},
            "own": true, "rate": "5/h", "expires_at": "2100-01-01T00:00:00.000000Z",
        });
        assert_eq!(options.params().expect("valid"), expected);
        for wrong in [
            "create --name ci",
            "create --name ci --scope write",
            "create --scope read",
            "create --name ci --scope read --rate fast",
            "create --name ci --scope read --expires soon",
            "create --name ci --scope read --expires 99999d",
            "revoke",
            "rotate",
        ] {
            let words: Vec<&str> = wrong.split(' ').collect();
            assert!(command(&words).is_none(), "{wrong}");
        }
    }

    #[test]
    fn options_become_caveats() {
        let words = [
            "narrow", "--scope", "read", "--own", "--queue", "a", "--queue", "b", "--rate", "1/s",
        ];
        let Some(TokenCommand::Narrow(options)) = command(&words) else {
            panic!("not read");
        };
        let caveats = options.caveats().expect("valid");
        let texts: Vec<String> = caveats.iter().map(Caveat::text).collect();
        let expected = [
            r#"{"scopes":["read"]}"#,
            r#""own""#,
            r#"{"queues":["a","b"]}"#,
            r#"{"rate":{"jobs":1,"per_s":1}}"#,
        ];
        assert_eq!(texts, expected);
    }
}
