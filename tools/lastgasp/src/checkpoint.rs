//! `lastgasp checkpoint`: has the running node make everything durable, now.
//!
//! Invariant: it succeeds only when the node has said that all it took in before is durable.

use anstream::println;
use anyhow::Result;
use serde_json::json;

use crate::check::Output;
use crate::place::PlaceArgs;
use crate::status::print_json;

/// Has the running node make everything durable that it took in until now, and waits for it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lastgasp checkpoint && echo now the plug may be pulled

Exit codes: 0 everything taken in before is durable, 2 it is not, or no node runs.")]
pub(crate) struct Args {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    #[command(flatten)]
    place: PlaceArgs,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let upto = args.place.open()?.checkpoint()?;
    match args.output {
        Output::Json => print_json(&json!({ "durable_upto": upto })),
        Output::Text => {
            println!("everything up to record {upto} is durable");
            Ok(())
        }
    }
}
