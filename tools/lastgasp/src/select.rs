//! Which records: the flags that journalctl has too.
//!
//! Invariants: what the engine can filter by itself is handed to it; the rest is looked at here, record by record; a
//! name or a time that cannot be is an error before anything is printed.

use anyhow::{Result, bail};
use clap::Args;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use lastgasp_client::{Boots, Client, Query};
use regex::bytes::{Regex, RegexBuilder};

use crate::look::clean;
use crate::severity::{self, Severities};
use crate::times;

/// Streams that are named where one is asked for that is not there.
const NAMES_SHOWN: usize = 40;

/// Which records.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which records")]
pub(crate) struct SelectArgs {
    /// Only this stream; more than once for several, with * and ? for many.
    #[arg(short = 'u', long = "stream", visible_alias = "unit", value_name = "STREAM")]
    pub(crate) streams: Vec<String>,
    /// Only this severity and worse, or those of a range: warn, err..warning, 3 (syslog), 17 (OpenTelemetry).
    #[arg(short = 'p', long = "severity", visible_alias = "priority", value_name = "SEVERITY")]
    #[arg(value_parser = severity::parse)]
    severities: Option<Severities>,
    /// Only lines that this regular expression matches; without capitals, it matches those too.
    #[arg(short = 'g', long, value_name = "PATTERN")]
    pub(crate) grep: Option<String>,
    /// Whether -g tells capitals from small letters.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    case_sensitive: Option<bool>,
    /// Only records of one boot: 0 is the newest, -1 the one before, 7 that with this number (see lastgasp boots).
    #[arg(short = 'b', long, value_name = "ID", num_args = 0..=1, default_missing_value = "0")]
    #[arg(allow_negative_numbers = true)]
    pub(crate) boot: Option<i64>,
    /// Not before this time, by the sender's clock, or else by that of receipt: "2026-07-26 15:04", today, -90min.
    #[arg(short = 'S', long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    pub(crate) since: Option<i64>,
    /// Before this time.
    #[arg(short = 'U', long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    pub(crate) until: Option<i64>,
}

/// What a record has to be besides what the query says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    streams: Option<(Vec<String>, GlobSet)>,
    pub(crate) grep: Option<Regex>,
}

impl Wanted {
    /// The stream is one of those asked for.
    pub(crate) fn stream(&self, name: &str) -> bool {
        match &self.streams {
            None => true,
            Some((names, globs)) => names.iter().any(|n| n == name) || globs.is_match(name),
        }
    }

    /// The body, or a part of it, is what is looked for.
    pub(crate) fn body(&self, body: &[u8]) -> bool {
        self.grep.as_ref().is_none_or(|grep| grep.is_match(body))
    }
}

/// What is read, and which of it is shown.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) query: Query,
    pub(crate) wanted: Wanted,
}

impl SelectArgs {
    /// What is read, and which of it is shown. With `waits`, streams may be named that are not there yet.
    pub(crate) fn select(&self, client: &mut Client, waits: bool) -> Result<Selection> {
        let grep = self.grep.as_deref().map(|pattern| self.pattern(pattern)).transpose()?;
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since >= until
        {
            bail!("--since is not before --until: there can be nothing between them");
        }
        let mut query = Query {
            severity_min: self.severities.map(|severities| severities.min),
            severity_max: self.severities.and_then(|severities| severities.max),
            since_us: self.since,
            until_us: self.until,
            ..Query::default()
        };
        if let Some(id) = self.boot {
            (query.from, query.to) = range_of(&client.boots()?, id, &client.name())?;
        }
        let streams = if self.streams.is_empty() { None } else { Some(self.names(client, waits)?) };
        if let Some((names, globs)) = &streams
            && let ([only], true) = (names.as_slice(), globs.is_empty())
        {
            query.streams = vec![only.clone()];
        }
        Ok(Selection { query, wanted: Wanted { streams, grep } })
    }

    fn pattern(&self, pattern: &str) -> Result<Regex> {
        let has_capitals = pattern.chars().any(char::is_uppercase);
        let insensitive = !self.case_sensitive.unwrap_or(has_capitals);
        match RegexBuilder::new(pattern).case_insensitive(insensitive).build() {
            Ok(regex) => Ok(regex),
            Err(error) => bail!("-g {}: is no regular expression: {error}", clean(pattern)),
        }
    }

    fn names(&self, client: &mut Client, waits: bool) -> Result<(Vec<String>, GlobSet)> {
        let known = client.streams()?;
        let (mut names, mut globs) = (Vec::new(), GlobSetBuilder::new());
        for asked in &self.streams {
            // As in journalctl, a unit may be named with its suffix or without.
            let service = asked.strip_suffix(".service").map_or_else(|| format!("{asked}.service"), str::to_owned);
            let is_known = |name: &str| name == "other" || known.iter().any(|known| known == name);
            if is_known(asked) {
                names.push(asked.clone());
            } else if is_known(&service) {
                names.push(service);
            } else if asked.contains(['*', '?', '[', '{']) {
                let glob = GlobBuilder::new(asked).backslash_escape(true).build();
                let glob = glob.map_err(|error| anyhow::anyhow!("-u {}: {}", clean(asked), error.kind()))?;
                if !waits && !known.iter().any(|name| glob.compile_matcher().is_match(name)) {
                    bail!("{}: no stream matches `{}`; {}", client.name(), clean(asked), there_are(&known));
                }
                globs.add(glob);
            } else if waits {
                names.extend([asked.clone(), service]);
            } else {
                bail!("{}: there is no stream `{}`; {}", client.name(), clean(asked), there_are(&known));
            }
        }
        Ok((names, globs.build()?))
    }
}

fn there_are(known: &[String]) -> String {
    let names: Vec<String> = known.iter().take(NAMES_SHOWN).map(|name| clean(name)).collect();
    match known.len().checked_sub(NAMES_SHOWN) {
        _ if names.is_empty() => "there are: none yet".to_owned(),
        Some(more) if more > 0 => format!("there are: {} and {more} more", names.join(", ")),
        _ => format!("there are: {}", names.join(", ")),
    }
}

/// The numbers of a boot.
fn range_of(boots: &Boots, id: i64, name: &str) -> Result<(u64, u64)> {
    if let Some(boot) = boots.find(id) {
        return Ok(boots.range(boot));
    }
    match (boots.as_slice().first(), boots.as_slice().last()) {
        (Some(first), Some(last)) => bail!(
            "{name}: there is no boot {id}; there are {} to {}, or 0 to -{}",
            first.epoch,
            last.epoch,
            boots.as_slice().len() - 1
        ),
        _ => bail!("{name}: there is no boot {id}; nothing was ever stored"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        select: SelectArgs,
    }

    fn parsed(arguments: &[&str]) -> SelectArgs {
        Cli::try_parse_from([&["x"], arguments].concat()).unwrap().select
    }

    #[test]
    fn a_boot_may_be_named_as_in_journalctl() {
        for (arguments, want) in [
            (&["-b"][..], Some(0)),
            (&["-b", "-1"], Some(-1)),
            (&["-b-2"], Some(-2)),
            (&["-b", "7"], Some(7)),
            (&["--boot=3"], Some(3)),
            (&["-b", "-u", "x"], Some(0)),
            (&[], None),
        ] {
            assert_eq!(parsed(arguments).boot, want, "{arguments:?}");
        }
    }

    #[test]
    fn small_letters_match_capitals_too_unless_told_otherwise() {
        let matches = |arguments: &[&str], body: &str| {
            let select = parsed(arguments);
            select.pattern(select.grep.as_deref().unwrap()).unwrap().is_match(body.as_bytes())
        };
        assert!(matches(&["-g", "err"], "ERROR") && !matches(&["-g", "Err"], "ERROR"));
        assert!(matches(&["-g", "Err", "--case-sensitive=false"], "ERROR"));
        assert!(!matches(&["-g", "err", "--case-sensitive"], "ERROR"));
        assert!(parsed(&["-g", "("]).pattern("(").unwrap_err().to_string().contains("no regular expression"));
    }
}
