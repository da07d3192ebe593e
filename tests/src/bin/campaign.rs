//! Runs campaigns of power cuts against the engine, and replays what they found.

use clap::{Parser, ValueEnum};
use lastgasp_tests::campaign::{Extent, Options, Profile, replay, run};
use lastgasp_tests::report::{Total, json, table};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

const EXAMPLES: &str = "Examples:
  campaign --short                              what every change has to pass
  campaign --full --profile nor --seeds 1000    a night on NOR flash
  campaign --replay disk:w3:c117:a:c4:h2.17     one case again, with its story
  campaign --replay nor:s5:c9:m1f -v            and with the frames and bytes on the medium
  campaign --short -o json | jq .violations     for programs

Exit status: 0 if every promise held, 1 if one broke (its id is printed), 2 on wrong usage.";

/// Cuts the power of simulated media at every operation of the engine, and checks every promise after every cut.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    /// About a minute and a half on two cores (the default).
    #[arg(long, conflicts_with_all = ["full", "replay"])]
    short: bool,
    /// Everything: every outcome, every second cut on the disk. Hours.
    #[arg(long, conflicts_with = "replay")]
    full: bool,
    /// On which media.
    #[arg(long, value_enum, default_value_t = Media::All)]
    profile: Media,
    /// How many workloads by chance, on each medium [default: 12, with --full 200].
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Only workloads whose names begin so: w3, t, s.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Threads [default: one per core].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Runs one case again and tells its story.
    #[arg(long, value_name = "ID")]
    replay: Option<String>,
    /// With --replay: lists the frames on the medium and dumps what was torn.
    #[arg(short, long, requires = "replay")]
    verbose: bool,
    /// How the result is printed.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Media {
    Disk,
    Nor,
    All,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A panic of the engine is reported as a violation, with its id.
    std::panic::set_hook(Box::new(|_| ()));
    match &args.replay {
        Some(id) => tell(id, args.verbose),
        None => campaign(&args),
    }
}

fn tell(id: &str, verbose: bool) -> ExitCode {
    let (story, broken) = match replay(id, verbose) {
        Ok(told) => told,
        Err(e) => {
            eprintln!("campaign: {e}");
            return ExitCode::from(2);
        }
    };
    let mut out = std::io::stdout().lock();
    for line in story {
        if writeln!(out, "{line}").is_err() {
            return ExitCode::SUCCESS; // nobody reads on
        }
    }
    let (text, code) = match broken {
        Some(violation) => (format!("broken: {violation}"), ExitCode::FAILURE),
        None => ("every promise holds".to_owned(), ExitCode::SUCCESS),
    };
    writeln!(out, "{text}").ok();
    code
}

fn campaign(args: &Args) -> ExitCode {
    let extent = if args.full { Extent::Full } else { Extent::Short };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options {
        extent,
        profiles: match args.profile {
            Media::Disk => vec![Profile::Disk],
            Media::Nor => vec![Profile::Nor],
            Media::All => vec![Profile::Disk, Profile::Nor],
        },
        seeds: args.seeds.unwrap_or(if args.full { 200 } else { 12 }),
        threads: args.threads.unwrap_or(cores),
        only: args.only.clone(),
    };
    let show = std::io::stderr().is_terminal();
    let start = Instant::now();
    let rows = run(&options, &|done, of| {
        if show {
            eprint!("\r{done} of {of} tasks, {:.0} s ", start.elapsed().as_secs_f64());
        }
    });
    if show {
        eprint!("\r\x1b[K");
    }
    let text = match args.output {
        Format::Table => table(&rows, start.elapsed()),
        Format::Json => json(&rows, start.elapsed()),
    };
    std::io::stdout().lock().write_all(text.as_bytes()).ok();
    let total = Total::of(&rows);
    // On one medium alone not every case can be met.
    let incomplete = matches!(args.profile, Media::All) && args.only.is_none() && !total.missing_cases.is_empty();
    if total.broken > 0 || incomplete { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
