//! What a person who starts the node in a terminal is told.
//!
//! Invariant: every command that is printed works as it stands, from the directory it is printed in.

use std::fs;
use std::path::Path;

/// Three commands to try, and where to read on.
#[must_use]
pub fn what_to_try(store: &Path) -> String {
    let me = std::env::current_exe().unwrap_or_else(|_| "lastgaspd".into());
    let here = std::env::current_dir().unwrap_or_default();
    let short = |path: &Path| match path.strip_prefix(&here) {
        Ok(below) => format!("./{}", below.display()),
        Err(_) => path.display().to_string(),
    };
    let tool = me.with_file_name("lastgasp");
    let tool = match (fs::exists(&tool), std::env::var_os("CARGO")) {
        (Ok(true), _) => short(&tool),
        (_, Some(_)) => "cargo run --release -p lastgasp --".to_owned(),
        _ => "lastgasp".to_owned(),
    };
    let (me, store) = (short(&me), store.display());
    format!(
        "this node keeps this machine's logs through power cuts, until you press Ctrl-C. In another terminal, try:\n  \
         {tool} tail --store {store} -f\n  \
         {tool} status --store {store}\n  \
         logger --server 127.0.0.1 --port 5514 --udp \"hello from $USER\"\n\
         More: {me} --help"
    )
}
