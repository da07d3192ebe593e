//! Who is at the other end.
//!
//! Invariant: the mode of the socket decides, and is checked again here; who cannot be looked up is not refused,
//! because the mode has let them in.

use std::fs;
use std::os::unix::net::UnixStream;

use rustix::net::sockopt::socket_peercred;

/// Who may read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    /// The node's own user.
    pub(super) uid: u32,
    /// The socket's group.
    pub(super) gid: u32,
}

/// Why somebody may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) String);

impl Allowed {
    /// Checks the other end of a connection.
    pub(super) fn check(&self, stream: &UnixStream) -> Result<(), Refusal> {
        let peer =
            socket_peercred(stream).map_err(|error| Refusal(format!("it cannot be told who they are: {error}")))?;
        let (uid, gid) = (peer.uid.as_raw(), peer.gid.as_raw());
        let pid = peer.pid.as_raw_nonzero().get();
        let groups = fs::read_to_string(format!("/proc/{pid}/status")).ok();
        let groups = groups.as_deref().and_then(groups_of);
        if self.admits(uid, gid, groups.as_deref()) {
            return Ok(());
        }
        Err(Refusal(format!("user {uid} (process {pid}) is not in group {}", self.gid)))
    }

    fn admits(&self, uid: u32, gid: u32, groups: Option<&[u32]>) -> bool {
        uid == 0 || uid == self.uid || gid == self.gid || groups.is_none_or(|groups| groups.contains(&self.gid))
    }
}

/// The supplementary groups in `/proc/PID/status`.
fn groups_of(status: &str) -> Option<Vec<u32>> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"))?;
    line.split_whitespace().map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_node_itself_and_members_of_the_group_may_read() {
        let allowed = Allowed { uid: 500, gid: 40 };
        for (uid, gid, groups, admitted) in [
            (0, 0, Some(&[][..]), true),
            (500, 500, Some(&[]), true),
            (600, 40, Some(&[]), true),
            (600, 600, Some(&[7, 40]), true),
            (600, 600, Some(&[7]), false),
            (600, 600, None, true),
        ] {
            assert_eq!(allowed.admits(uid, gid, groups), admitted, "{uid} {gid} {groups:?}");
        }
    }

    #[test]
    fn one_own_process_is_looked_up() {
        let (a, _b) = UnixStream::pair().unwrap();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        assert!(groups_of(&status).is_some());
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(Allowed { uid, gid: u32::MAX }.check(&a), Ok(()));
    }
}
