//! One turn of one mode, in a closed loop and at a rate.

use std::{process, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::{Builder, Runtime};

use super::{
    Route, SESSIONS,
    children::{App, Store, cpu},
    cores::Cores,
    equal_rate,
    load::{self, Load, Turn},
    report::Sample,
    schedule::Schedule,
};
use crate::mode::Mode;

/// Part of a turn that each is warmed up for.
const WARM_UP: f64 = 0.2;

/// An application with the sessions that it has.
pub(super) struct Subject {
    pub(super) app: App,
    cookies: Vec<String>,
}

/// What takes the turns, and how long each is.
pub(super) struct Turns {
    runtime: Runtime,
    store: Store,
    turn: Duration,
    cores: Cores,
}

impl Turns {
    pub(super) fn new(store: Store, turn: Duration, cores: Cores) -> Result<Self> {
        Ok(Self { runtime: Builder::new_current_thread().enable_all().build()?, store, turn, cores })
    }

    pub(super) fn start(&self, mode: Mode) -> Result<Subject> {
        let app = App::start(mode, &self.store, self.cores)?;
        let cookies = self.runtime.block_on(load::seed(app.addr, SESSIONS, mode == Mode::Plain));
        Ok(Subject { app, cookies: cookies.with_context(|| format!("{mode}"))? })
    }

    /// Each connection sends as soon as it was answered.
    pub(super) fn closed(&self, subject: &Subject, connections: u16, route: Route) -> Result<Sample> {
        let app = &subject.app;
        let load = Load::new(app.addr, &subject.cookies, |session| route.path(session), connections);
        self.runtime.block_on(load.run(self.turn.mul_f64(WARM_UP)))?;
        let before = (app.cpu()?, self.store.cpu()?);
        let found = self.runtime.block_on(load.run(self.turn))?;
        let (app_cpu, store_cpu) = (app.cpu()? - before.0, self.store.cpu()? - before.1);
        check(&found, route, app.mode)?;
        let per_request = |cpu: Duration| cpu.as_secs_f64() * 1e6 / found.requests as f64;
        Ok(Sample {
            app_us: per_request(app_cpu),
            store_us: per_request(store_cpu),
            requests_per_second: found.requests as f64 / found.elapsed.as_secs_f64(),
            p50_us: found.latency.value_at_quantile(0.5) as f64,
            p99_us: found.latency.value_at_quantile(0.99) as f64,
        })
    }

    /// Requests are due `per_second`, the same ones for every mode of a round, whose number is the seed.
    pub(super) fn at_rate(
        &self,
        subject: &Subject,
        connections: u16,
        route: Route,
        per_second: f64,
        round: u32,
    ) -> Result<equal_rate::Sample> {
        let app = &subject.app;
        let load = Load::new(app.addr, &subject.cookies, |session| route.path(session), connections);
        let schedule = |turn| Schedule::new(per_second, turn, u64::from(round));
        self.runtime.block_on(load.run_open(schedule(self.turn.mul_f64(WARM_UP))))?;
        let before = cpu(process::id())?;
        let found = self.runtime.block_on(load.run_open(schedule(self.turn)))?;
        let load_cpu = (cpu(process::id())? - before).as_secs_f64();
        check(&found.turn, route, app.mode)?;
        let quantile = |quantile| found.turn.latency.value_at_quantile(quantile) as f64;
        Ok(equal_rate::Sample {
            requests_per_second: found.turn.requests as f64 / found.turn.elapsed.as_secs_f64(),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            late: found.late as f64 / found.turn.requests as f64,
            load_cpu: load_cpu / found.turn.elapsed.as_secs_f64(),
        })
    }

    pub(super) fn store_name(&self) -> String {
        self.store.name.clone()
    }
}

fn check(found: &Turn, route: Route, mode: Mode) -> Result<()> {
    let Turn { requests, failed, failure, .. } = found;
    let failure = failure.as_deref().unwrap_or_default();
    ensure!(*failed == 0, "{failed} of {requests} requests for {} failed in mode {mode}: {failure}", route.path(0));
    ensure!(*requests > 0, "no request for {} was answered in mode {mode}", route.path(0));
    Ok(())
}
