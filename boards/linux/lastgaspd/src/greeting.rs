//! What a person who starts the node in a terminal is told.
//!
//! Invariant: every command that is printed works as it stands, from the directory it is printed in.

use std::fs;
use std::path::Path;

use crate::api;

/// Three commands to try, and where to read on; `socket` is where the node can be read.
#[must_use]
pub fn what_to_try(socket: Option<&Path>, store: &Path) -> String {
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
    let me = short(&me);
    let node = match socket {
        Some(socket) if *socket == api::default_path(store) => String::new(),
        Some(socket) => format!(" --socket {}", socket.display()),
        None => format!(" --store {}", store.display()),
    };
    format!(
        "this node keeps this machine's logs through power cuts, until you press Ctrl-C. In another terminal, try:\n  \
         {tool} tail{node} -f\n  \
         {tool} status{node}\n  \
         logger --server 127.0.0.1 --port 5514 --udp \"hello from $USER\"\n\
         More: {me} --help"
    )
}
