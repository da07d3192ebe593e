//! `lastgasp powercut`: pulls the plug of simulated nodes, and sees what survives.
//!
//! Invariants: the code under test is the code that runs on the device; what is found is the same on every machine,
//! unless --minutes bounds it; nothing outside the report that was asked for is written.

mod html;
mod plot;
mod summary;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anstream::{eprintln, println};
use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lastgasp_hal_sim::campaign::Profile;
use lastgasp_hal_sim::node::traffic::Bodies;
use lastgasp_hal_sim::powercut::{self, Depth, Progress, Request, Verdict};

use crate::status::print_json;

const EXAMPLES: &str = "\
Examples:
  lastgasp powercut                                 all media, in less than a minute
  lastgasp powercut --report cuts.html              and a page with pictures
  lastgasp powercut --exhaustive --profile disk     every cut of every workload, every outcome
  lastgasp powercut --minutes 60                    days and days of nodes, as many as an hour holds
  lastgasp powercut --log /var/log/syslog           your own log lines as the records
  lastgasp powercut --power supply.txt              your own supply, see below
  lastgasp powercut --replay disk:w3:c117:a         what happened there, operation by operation
  lastgasp powercut -o json | jq '.profiles[] | {profile, cuts, acknowledged_lost}'

A supply, as --power reads it (times: 250ms, 90s, 15m, 2h, 1d; A..B is anything between):
  hold-up 400ms                 what the reserve gives when the mains go
  sense right                   or: late 200ms, opposite, stuck
  dark 2s..20m                  how long the node stays dark
  every 40m..6h cut             the mains go
  every 2h..9h yank             the plug is pulled behind the reserve
  every 1h..5h sag 5ms..900ms   the mains go and come back
  every 5h..15h bounce 2..6     they do so a few times, then go
  at 3d cut

A workload, as --workload reads it:
  stream app every 20s..8m batch 1..9 size 30..220 class interval
  stream sshd every 2m..20m class group states
  lose every 5h..20h            records that never reach the node
  stop every 8h..40h            a clean stop
  kill every 4h..20h            the process dies

Media: nor (serial NOR flash), disk (a volatile cache), sdcard (honours sync; a cut can damage what lies beside the
write), sdcard-liar (says it has synced when it has not: expected to lose, and counted apart).

Exit codes: 0 every promise was kept, 1 one was broken (with the id that replays it), 2 it could not be done.";

/// Pulls the plug of simulated nodes a great many times, and sees what survives.
///
/// It runs the very code that runs on the device, on simulated media, supplies and clocks. Without arguments: a sample
/// of all cuts of workloads that cross every path of the engine, and ten days in the lives of six nodes, on every
/// medium.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// On which medium.
    #[arg(long, value_enum, default_value_t = Media::All)]
    profile: Media,
    /// Cut every workload at every operation, with every outcome.
    #[arg(long)]
    exhaustive: bool,
    /// And cut again at every operation of what follows: hours.
    #[arg(long, requires = "exhaustive")]
    double: bool,
    /// Let nodes live, whose mains fail at random; nothing else, unless --exhaustive says so.
    #[arg(long)]
    random: bool,
    /// How many nodes live on each medium [default: 6, with --random 100].
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Let nodes live for so long, however many that are.
    #[arg(long, value_name = "M", conflicts_with = "seeds")]
    minutes: Option<u64>,
    /// How many days each of them lives.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    /// The first seed.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..1 << 62))]
    seed: u64,
    /// What the nodes take in, described in a file.
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,
    /// The lines of this log are what the records say.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The power supply of the nodes, described in a file.
    #[arg(long, value_name = "SCRIPT")]
    power: Option<PathBuf>,
    /// How many threads [default: one per core].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
    /// Write a page with pictures: one file, for any browser, without a network.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Run one case again and tell its story. Cases of nodes that live need the same --workload, --log and --power.
    #[arg(long, value_name = "ID", conflicts_with_all = ["exhaustive", "random", "minutes", "report"])]
    replay: Option<String>,
    /// With --replay: list the frames on the medium, and dump what was torn.
    #[arg(short, long, requires = "replay")]
    verbose: bool,
    /// Count what a lying card loses as broken promises.
    #[arg(long)]
    no_excuse: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Media {
    Nor,
    Disk,
    Sdcard,
    SdcardLiar,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl Media {
    fn profiles(self) -> Vec<Profile> {
        match self {
            Self::Nor => vec![Profile::Nor],
            Self::Disk => vec![Profile::Disk],
            Self::Sdcard => vec![Profile::SdCard],
            Self::SdcardLiar => vec![Profile::Liar],
            Self::All => Profile::ALL.to_vec(),
        }
    }
}

/// What a whole run came to.
struct Run {
    verdicts: Vec<Verdict>,
    took: Duration,
    jobs: usize,
    no_excuse: bool,
    /// The flags that a replay needs too.
    flags: String,
}

impl Run {
    /// Whether a broken promise of this medium counts.
    fn counts(&self, profile: Profile) -> bool {
        profile.is_honest() || self.no_excuse
    }

    fn broken(&self) -> u64 {
        self.verdicts.iter().filter(|v| self.counts(v.profile)).map(Verdict::all_broken).sum()
    }

    fn cuts(&self) -> u64 {
        self.verdicts.iter().map(Verdict::cuts).sum()
    }

    fn replay_command(&self, id: &str) -> String {
        format!("lastgasp powercut --replay {id}{}", self.flags)
    }
}

/// `true` if every promise was kept.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let request = request(args)?;
    // A panic of the engine is a broken promise, which is told of with its id.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let done = match &args.replay {
        Some(id) => replay(id, &request, args.verbose, args.no_excuse),
        None => campaign(args, &request),
    };
    std::panic::set_hook(hook);
    done
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))
}

fn request(args: &Args) -> Result<Request> {
    let defaults = Request::default();
    let own_lives = args.workload.is_some() || args.log.is_some() || args.power.is_some();
    let lives_only = args.random || args.minutes.is_some() || own_lives;
    let depth = match (args.exhaustive, args.double) {
        (true, true) => Depth::Double,
        (true, false) => Depth::Single,
        (false, _) if lives_only => Depth::Nothing,
        (false, _) => defaults.depth,
    };
    let lives = match args.seeds {
        Some(seeds) => seeds,
        None if args.random => 100,
        None if args.exhaustive && !lives_only => 0,
        None => defaults.lives,
    };
    let mut request = Request {
        profiles: args.profile.profiles(),
        depth,
        seed: args.seed,
        lives,
        days: args.days,
        time: args.minutes.map(|minutes| Duration::from_secs(minutes.saturating_mul(60))),
        ..defaults
    };
    if let Some(jobs) = args.jobs {
        request.jobs = usize::try_from(jobs).unwrap_or(usize::MAX);
    }
    if let Some(path) = &args.power {
        request.script = read(path)?.parse().map_err(|e| anyhow!("{}: {e}", path.display()))?;
    }
    if let Some(path) = &args.workload {
        request.traffic = read(path)?.parse().map_err(|e| anyhow!("{}: {e}", path.display()))?;
    }
    if let Some(path) = &args.log {
        let text = fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        request.bodies = Bodies::of_log(&text);
        if matches!(&request.bodies, Bodies::Lines(lines) if lines.is_empty()) {
            return Err(anyhow!("{}: there is no line in it", path.display()));
        }
    }
    Ok(request)
}

fn replay(id: &str, request: &Request, verbose: bool, no_excuse: bool) -> Result<bool> {
    let replayed = powercut::replay(id, request, verbose).map_err(|e| anyhow!(e))?;
    let mut out = anstream::stdout().lock();
    for line in &replayed.story {
        writeln!(out, "{line}")?;
    }
    match &replayed.broken {
        None => writeln!(out, "every promise holds")?,
        Some(violation) if replayed.is_honest => writeln!(out, "broken: {violation}")?,
        Some(violation) => writeln!(out, "the card lied: {violation}")?,
    }
    Ok(replayed.broken.is_none() || !(replayed.is_honest || no_excuse))
}

fn campaign(args: &Args, request: &Request) -> Result<bool> {
    // A report that cannot be written is told of before an hour of work, not after.
    let report = match &args.report {
        Some(path) => Some(fs::File::create(path).with_context(|| format!("{}: cannot be written", path.display()))?),
        None => None,
    };
    let start = Instant::now();
    let bar = bar(request);
    let verdicts = powercut::run(request, &|progress: Progress| show(&bar, request, start, progress));
    bar.finish_and_clear();
    let run =
        Run { verdicts, took: start.elapsed(), jobs: request.jobs, no_excuse: args.no_excuse, flags: flags(args) };
    match args.output {
        Format::Json => print_json(&summary::json(&run))?,
        Format::Table => summary::print(&run, &mut anstream::stdout().lock())?,
    }
    if let (Some(mut file), Some(path)) = (report, &args.report) {
        let page = html::page(&run, request);
        file.write_all(page.as_bytes()).with_context(|| format!("{}: cannot be written", path.display()))?;
        if args.output == Format::Table {
            println!("\nThe report is in {}", path.display());
        } else {
            eprintln!("The report is in {}", path.display());
        }
    }
    Ok(run.broken() == 0)
}

/// The flags that decide what a life is.
fn flags(args: &Args) -> String {
    let files = [("--workload", &args.workload), ("--log", &args.log), ("--power", &args.power)];
    let given = files.iter().filter_map(|(flag, path)| Some((flag, path.as_ref()?)));
    given.map(|(flag, path)| format!(" {flag} {}", path.display())).collect()
}

fn bar(request: &Request) -> ProgressBar {
    let hidden = !io::stderr().is_terminal();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let length = request.time.map_or(1, |time| time.as_secs());
    let bar = ProgressBar::with_draw_target(Some(length), target);
    // The template is a constant that parses; the default one is as good.
    if let Ok(style) = ProgressStyle::with_template("[{bar:40}] {percent:>3} %  {msg}  {eta} left") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn show(bar: &ProgressBar, request: &Request, start: Instant, progress: Progress) {
    let took = start.elapsed();
    match (progress.total, request.time) {
        (Some(total), _) => {
            bar.set_length(total);
            bar.set_position(progress.done);
        }
        (None, _) => bar.set_position(took.as_secs()),
    }
    let rate = u128::from(progress.cuts) * 1000 / took.as_millis().max(1);
    bar.set_message(format!("{} cuts, {rate} a second", summary::grouped(progress.cuts)));
}
