//! Whether the process that last maintained a table is certainly dead.
//!
//! A killed process leaves its lock behind, and the metastore keeps it for `metastore.txn.timeout`, five minutes by default. A restart
//! on the same machine need not wait for that: the table's parameter says which process took which lock, and the kernel says whether
//! that process still is. Nothing is concluded about another machine, another boot or another container.

use std::fmt;
use std::str::FromStr;

/// A process that holds the lock of a gold table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub lock_id: i64,
    process: Process,
}

/// A process, told from all others that this kernel has run or will run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    boot: String,
    pid_namespace: String,
    pid: u32,
    /// Clock ticks from the boot to the start of the process: numbers of processes are used again.
    started: u64,
}

impl Process {
    /// This process; none where the system doesn't say.
    fn this() -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_string();
        let pid_namespace = std::fs::read_link("/proc/self/ns/pid").ok()?.to_str()?.to_string();
        let pid = std::process::id();
        Some(Self { boot, pid_namespace, pid, started: started(pid)? })
    }
}

/// When a process was started, in clock ticks since the boot; none if it is not there.
fn started(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name in parentheses, may hold spaces; the start is the 22nd.
    status.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

impl Holder {
    /// This process, holding a lock.
    pub fn this(lock_id: i64) -> Option<Self> {
        Some(Self { lock_id, process: Process::this()? })
    }

    /// True only if the process ran here and runs no more.
    pub fn is_certainly_dead(&self) -> bool {
        let Some(this) = Process::this() else { return false };
        let same_kernel = this.boot == self.process.boot && this.pid_namespace == self.process.pid_namespace;
        same_kernel && std::path::Path::new("/proc/self/stat").exists() && started(self.process.pid) != Some(self.process.started)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Process { boot, pid_namespace, pid, started } = &self.process;
        write!(f, "lock {} process {pid} started {started} {pid_namespace} boot {boot}", self.lock_id)
    }
}

impl FromStr for Holder {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split(' ').collect();
        let ["lock", lock_id, "process", pid, "started", started, pid_namespace, "boot", boot] = words[..] else {
            return Err(());
        };
        let process = Process {
            boot: boot.to_string(),
            pid_namespace: pid_namespace.to_string(),
            pid: pid.parse().map_err(|_| ())?,
            started: started.parse().map_err(|_| ())?,
        };
        Ok(Self { lock_id: lock_id.parse().map_err(|_| ())?, process })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_dead_only_if_this_kernel_says_so() {
        let this = Holder::this(7).unwrap();
        assert_eq!(this.to_string().parse(), Ok(this.clone()));
        assert!(!this.is_certainly_dead());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let process = |change: fn(&mut Process)| {
            let mut holder = Holder { process: Process { pid, ..this.process.clone() }, lock_id: 7 };
            change(&mut holder.process);
            holder
        };
        assert!(process(|_| ()).is_certainly_dead());
        assert!(
            process(|process| (process.pid, process.started) = (std::process::id(), 1)).is_certainly_dead(),
            "its number was used again"
        );
        assert!(!process(|process| process.boot = "another".into()).is_certainly_dead());
        assert!(!process(|process| process.pid_namespace = "another".into()).is_certainly_dead());
        assert_eq!("lock 7 process".parse::<Holder>(), Err(()));
    }
}
