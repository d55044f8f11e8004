//! `token`: making, listing and revoking access tokens, through a node or in a store directly.
//!
//! Owns: which of the two is meant, and durations such as `90d`. Never: prints a secret twice. Invariant: an explicit option beats the
//! environment.

use super::Usage;
use super::client::Client;
use super::client::retry::within;
use super::jobs::{PATIENCE, seconds};
use super::opening::{DEFAULT_STORE, StoreAddress};
use super::output::{self, Align};
use crate::domain::ids::UnixMs;
use crate::http::auth::secret::new_token;
use crate::http::wire::{CreateToken, Scope, Timestamp, Token};
use crate::store::{Store, TokenRow};
use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, Subcommand};
use std::process::ExitCode;
use std::sync::Arc;

/// Arguments of `token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it, this once
    Create(CreateArgs),
    /// List the tokens that were not revoked; their secrets are stored nowhere
    List(ListArgs),
    /// Make a token useless
    Revoke(RevokeArgs),
}

/// Where tokens are kept.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where")]
struct Place {
    /// Work on this store directly [env: TALLYKEEPER_STORE] [default: sqlite:./tallykeeper.db]
    #[arg(long, value_name = "STORE")]
    store: Option<StoreAddress>,
    /// Ask this node, with an admin token, if it wants one [env: TALLYKEEPER_SERVER]
    #[arg(long, value_name = "URL", conflicts_with = "store")]
    server: Option<String>,
    /// The token to ask with
    #[arg(long, value_name = "TOKEN", env = "TALLYKEEPER_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Arguments of `token create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// What it is for, for people
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What it allows: read, submit, work or admin (which is all of them); may be given several times
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// Only for this queue; may be given several times; without it, for every queue
    #[arg(long = "queue", value_name = "QUEUE")]
    queues: Vec<String>,
    /// How long it is good for, such as 12h, 90d or 1y; without it, for ever
    #[arg(long, value_name = "TIME", value_parser = span_s)]
    expires: Option<u64>,
    /// Print JSON instead of the bare token
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `token list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print one JSON object per token and line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `token revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The token's id, as listed
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    place: Place,
}

/// Reads `45s`, `30m`, `12h`, `90d`, `2w`, `1y` as seconds.
fn span_s(text: &str) -> Result<u64> {
    let bad = || anyhow!("expected a number and s, m, h, d, w or y, such as 90d");
    let unit = text.chars().last().ok_or_else(bad)?;
    let unit_s = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        'y' => 365 * 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| bad())?;
    ensure!(
        (1..=100 * 365 * 86_400 / unit_s).contains(&number),
        "expected more than nothing and at most 100 years"
    );
    Ok(number * unit_s)
}

/// A node or a store.
enum Target {
    Node(Client),
    Store(Arc<dyn Store>),
}

impl Place {
    /// For what makes no sense on a store that is not there: a mistyped path must not make one.
    async fn known_target(&self) -> Result<Target> {
        self.target_if(|address| match address {
            StoreAddress::Sqlite(path) if !path.exists() => Err(Usage::because(anyhow!("there is no store {address}"))),
            _ => Ok(()),
        })
        .await
    }

    async fn target(&self) -> Result<Target> {
        self.target_if(|_| Ok(())).await
    }

    async fn target_if(&self, check: impl FnOnce(&StoreAddress) -> Result<()>) -> Result<Target> {
        let env = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let server = match (&self.server, &self.store) {
            (Some(server), _) => Some(server.clone()),
            (None, Some(_)) => None,
            (None, None) => env("TALLYKEEPER_SERVER"),
        };
        if let Some(server) = server {
            let token = self.token.as_deref().filter(|token| !token.is_empty());
            return Ok(Target::Node(Client::new(&server, token).map_err(Usage::because)?));
        }
        let address = match &self.store {
            Some(store) => store.clone(),
            None => {
                let text = env("TALLYKEEPER_STORE").unwrap_or_else(|| DEFAULT_STORE.to_owned());
                text.parse().context("TALLYKEEPER_STORE").map_err(Usage::because)?
            }
        };
        check(&address)?;
        let store = address
            .open()
            .await
            .context("a node may be running on it: --server asks that node")?;
        store.migrate().await?;
        Ok(Target::Store(store))
    }
}

/// `token`
pub(crate) async fn token(command: TokenCommand) -> Result<ExitCode> {
    match command {
        TokenCommand::Create(args) => create(args).await?,
        TokenCommand::List(args) => list(args).await?,
        TokenCommand::Revoke(args) => revoke(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: CreateArgs) -> Result<()> {
    let queues = (!args.queues.is_empty()).then_some(args.queues);
    let (token, secret) = match args.place.target().await? {
        Target::Node(client) => {
            let body = CreateToken {
                name: args.name,
                scopes: args.scopes,
                queues,
                expires_at: None,
                expires_in_s: args.expires,
            };
            // Not repeated: an answer that was lost may have made a token nobody knows.
            let made = client.create_token(&body).await?;
            let secret = made.token.clone();
            (serde_json::to_value(&made)?, secret)
        }
        Target::Store(store) => {
            let now = store.clock().await?;
            let expires_at = args
                .expires
                .map(|s| now.plus_ms(i64::try_from(s * 1000).unwrap_or(i64::MAX)));
            let (row, secret) = new_token(args.name, &args.scopes, queues, now, expires_at);
            check(&row)?;
            store.create_token(&row).await?;
            let mut shown = serde_json::to_value(shown(&row))?;
            shown["token"] = secret.clone().into();
            (shown, secret)
        }
    };
    output::print(&if args.json { output::json(&token)? } else { secret })
}

/// The limits a node would hold it to.
fn check(row: &TokenRow) -> Result<()> {
    let max = crate::domain::job::Limits::default().name_bytes;
    crate::domain::job::check_name("name", &row.name, max)?;
    for queue in row.queues.iter().flatten() {
        crate::domain::job::check_name("queue", queue, max)?;
    }
    Ok(())
}

fn shown(row: &TokenRow) -> Token {
    Token {
        id: row.id.clone(),
        name: row.name.clone(),
        // A scope this version does not know is not one it could grant.
        scopes: row.scopes.iter().filter_map(|scope| scope.parse().ok()).collect(),
        queues: row.queues.clone(),
        created_at: Timestamp(row.created_at),
        expires_at: row.expires_at.map(Timestamp),
    }
}

async fn list(args: ListArgs) -> Result<()> {
    let tokens = match args.place.known_target().await? {
        Target::Node(client) => within(PATIENCE, || client.tokens()).await?.items,
        Target::Store(store) => store.list_tokens().await?.iter().map(shown).collect(),
    };
    if args.json {
        for token in &tokens {
            output::print(&output::json(token)?)?;
        }
        return Ok(());
    }
    if tokens.is_empty() {
        output::note("no tokens: a node on this store lets in whoever is on its machine, and listens nowhere else");
        return Ok(());
    }
    let columns = ["ID", "NAME", "SCOPES", "QUEUES", "CREATED", "EXPIRES"].map(|title| (title, Align::Left));
    let rows: Vec<Vec<String>> = tokens.iter().map(row).collect();
    output::print(&output::table(&columns, &rows))
}

fn row(token: &Token) -> Vec<String> {
    let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.as_str()).collect();
    vec![
        token.id.clone(),
        token.name.clone(),
        scopes.join(","),
        token
            .queues
            .as_ref()
            .map_or_else(|| "every".to_owned(), |queues| queues.join(",")),
        seconds(token.created_at),
        token.expires_at.map_or_else(|| "never".to_owned(), seconds),
    ]
}

async fn revoke(args: RevokeArgs) -> Result<()> {
    match args.place.known_target().await? {
        Target::Node(client) => client.revoke_token(&args.id).await?,
        Target::Store(store) => store.revoke_token(&args.id).await?,
    }
    output::note(&output::clean(&format!("token {} is revoked", args.id)));
    Ok(())
}

/// A token for this process alone, for a node whose store holds tokens already; it ends by itself if nobody revokes it.
pub(crate) async fn lend(store: &dyn Store, valid_ms: i64) -> Result<(String, String)> {
    let now: UnixMs = store.clock().await?;
    let scopes = [Scope::Read, Scope::Submit, Scope::Work];
    let (row, secret) = new_token("run".to_owned(), &scopes, None, now, Some(now.plus_ms(valid_ms)));
    store.create_token(&row).await?;
    Ok((row.id, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit_and_a_bound() {
        for (text, s) in [
            ("45s", 45),
            ("30m", 1800),
            ("12h", 43_200),
            ("90d", 7_776_000),
            ("1y", 31_536_000),
        ] {
            assert_eq!(span_s(text).unwrap(), s);
        }
        for bad in [
            "",
            "90",
            "d",
            "0d",
            "-1d",
            "1é",
            "101y",
            "99999999999999999999d",
            "1.5h",
        ] {
            assert!(span_s(bad).is_err(), "{bad}");
        }
    }
}
