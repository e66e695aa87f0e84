//! Which cores the measured processes run on: applications on all but the last, the store and the load on that one.

use std::process::{Child, Command};

use anyhow::Result;
#[cfg(target_os = "linux")]
use {
    anyhow::{Context as _, ensure},
    rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// Keeps this program, and what it starts from now on, to the last core.
///
/// # Errors
/// When there is only one, or the kernel refuses it.
#[cfg(target_os = "linux")]
pub(super) fn pin() -> Result<Cores> {
    let all = sched_getaffinity(None).context("--pin")?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| all.is_set(core)).collect();
    ensure!(cores.len() > 1, "--pin: there is only one core to run on");
    let (mut applications, mut last) = (all, CpuSet::new());
    last.set(cores[cores.len() - 1]);
    applications.unset(cores[cores.len() - 1]);
    sched_setaffinity(None, &last).context("--pin: the kernel refuses it")?;
    Ok(Cores { pinned: Some((applications, last)) })
}

/// # Errors
/// Always: elsewhere nothing of the comparison works either.
#[cfg(not(target_os = "linux"))]
pub(super) fn pin() -> Result<Cores> {
    anyhow::bail!("--pin works on Linux only")
}

/// Where applications are started: left to the kernel, unless [`pin`] has made it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cores {
    /// Those of the applications, and the last one.
    #[cfg(target_os = "linux")]
    pinned: Option<(CpuSet, CpuSet)>,
}

impl Cores {
    /// Starts an application: it counts its cores as it begins, and makes a thread for each.
    pub(super) fn start(self, application: &mut Command) -> Result<Child> {
        #[cfg(target_os = "linux")]
        if let Some((applications, last)) = self.pinned {
            sched_setaffinity(None, &applications).context("--pin")?;
            let child = application.spawn();
            sched_setaffinity(None, &last).context("--pin")?;
            return Ok(child?);
        }
        Ok(application.spawn()?)
    }
}
