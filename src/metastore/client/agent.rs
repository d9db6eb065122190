//! The name under which a process takes locks, from which another tells whether that process is certainly dead.
//!
//! A killed process leaves its locks behind, and the metastore keeps them for `metastore.txn.timeout`, five minutes by default. A restart
//! on the same machine need not wait for that: the lock's agent says which process took it, and the kernel says whether that process
//! still is. Nothing is concluded about another machine, another boot or another container, nor about anybody else's lock.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use uuid::Uuid;

/// The metastore keeps this many characters of an agent.
#[cfg(test)]
const AGENT_CHARS_MAX: usize = 128;

/// Who took a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Tells one lock from all others, so that it is found again when the reply was lost.
    id: Uuid,
    process: Option<Process>,
}

/// A process, told from all others that this kernel has run or will run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    /// The boot's id without hyphens.
    boot: String,
    /// The inode of its namespace of process numbers.
    pid_namespace: u64,
    pid: u32,
    /// Clock ticks from the boot to the start of the process: numbers of processes are used again.
    started: u64,
}

impl Process {
    /// This process; none where the system doesn't say.
    fn this() -> Option<&'static Self> {
        static THIS: OnceLock<Option<Process>> = OnceLock::new();
        THIS.get_or_init(Self::read).as_ref()
    }

    fn read() -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().replace('-', "");
        // `pid:[4026531836]`
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
        let pid_namespace = namespace.to_str()?.trim_start_matches("pid:[").trim_end_matches(']').parse().ok()?;
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

impl Agent {
    /// This process, taking a lock.
    pub fn this() -> Self {
        Self { id: Uuid::new_v4(), process: Process::this().cloned() }
    }

    /// True only if the process ran here and runs no more.
    pub fn is_certainly_dead(&self) -> bool {
        let (Some(process), Some(this)) = (&self.process, Process::this()) else { return false };
        let same_kernel = this.boot == process.boot && this.pid_namespace == process.pid_namespace;
        same_kernel && std::path::Path::new("/proc/self/stat").exists() && started(process.pid) != Some(process.started)
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lakesmith-{}", self.id.simple())?;
        match &self.process {
            None => Ok(()),
            Some(Process { boot, pid_namespace, pid, started }) => write!(f, " pid {pid} {started} {pid_namespace} {boot}"),
        }
    }
}

impl FromStr for Agent {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let id = |text: &str| text.strip_prefix("lakesmith-").and_then(|id| Uuid::try_parse(id).ok()).ok_or(());
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            [agent] => Ok(Self { id: id(agent)?, process: None }),
            [agent, "pid", pid, started, pid_namespace, boot] => {
                let process = Process {
                    boot: boot.to_string(),
                    pid_namespace: pid_namespace.parse().map_err(|_| ())?,
                    pid: pid.parse().map_err(|_| ())?,
                    started: started.parse().map_err(|_| ())?,
                };
                Ok(Self { id: id(agent)?, process: Some(process) })
            }
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_dead_only_if_this_kernel_says_so() {
        let this = Agent::this();
        assert_eq!(this.to_string().parse(), Ok(this.clone()));
        assert!(!this.is_certainly_dead());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let agent = |change: fn(&mut Process)| {
            let mut process = Process { pid, ..this.process.clone().unwrap() };
            change(&mut process);
            Agent { process: Some(process), ..this.clone() }
        };
        assert!(agent(|_| ()).is_certainly_dead());
        assert!(
            agent(|process| (process.pid, process.started) = (std::process::id(), 1)).is_certainly_dead(),
            "a number used again"
        );
        assert!(!agent(|process| process.boot = "another".into()).is_certainly_dead());
        assert!(!agent(|process| process.pid_namespace = 1).is_certainly_dead());
        assert!(!Agent { process: None, ..this.clone() }.is_certainly_dead());
        for of_others in ["lakesmith-7", "hive_20241122", "lakesmith-1 pid 7"] {
            assert_eq!(of_others.parse::<Agent>(), Err(()));
        }
    }

    #[test]
    fn the_metastore_keeps_all_of_it() {
        let process = Process { boot: "f".repeat(32), pid_namespace: u64::from(u32::MAX), pid: u32::MAX, started: 1 << 50 };
        let agent = Agent { id: Uuid::max(), process: Some(process) };
        assert!(agent.to_string().len() <= AGENT_CHARS_MAX, "{agent}");
    }
}
