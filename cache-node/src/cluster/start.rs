//! `cluster start`: binds the endpoints and runs the controller until a signal.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Instant,
};

use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    cluster::{
        announce,
        controller::Controller,
        http::{self, Endpoints, Http},
        limits::{ORDERS_MAX, PROGRESS_PERIOD, TAKE_OVER_MAX},
        operation::{self, Desk},
        proxy::{self, Target},
        sentinel::{self, Sentinel},
        settings::Settings,
        state::{Folder, Ports},
        token::Token,
    },
    webhook::Webhooks,
};

/// Ports of the endpoints where nothing else is said or recorded.
const PORTS_DEFAULT: Ports = Ports { primary: 6379, reader: 6380, sentinel: 26379, http: 9379 };

/// Runs the cluster. Prints one line when its endpoints are bound and its nodes are being started.
pub(super) fn start(settings: Settings, is_with_parent: bool) -> ExitCode {
    crate::logging::start("notice", settings.log_format);
    // One thread passes bytes on, while the other watches.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime.and_then(|runtime| runtime.block_on(run(settings, is_with_parent)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cache-node cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings, is_with_parent: bool) -> io::Result<()> {
    let signal = crate::cli::signal()?;
    let folder = if is_with_parent { take_over(&settings.folder).await? } else { Folder::open(&settings.folder)? };
    let place = folder.path().display().to_string();
    let asked = settings.ports;
    let token = Token::of(folder.path())?;
    let folder_path = folder.path().to_owned();
    operation::end_former(folder.path()).await;
    let mut controller = Controller::new(settings, folder)?;
    // With what an earlier start was told, too.
    let settings = controller.settings().clone();

    let recorded = controller.state().ports;
    let primary = bind("--port", asked.primary, recorded.primary, PORTS_DEFAULT.primary).await?;
    let reader = bind("--reader-port", asked.reader, recorded.reader, PORTS_DEFAULT.reader).await?;
    let sentinel = bind("--sentinel-port", asked.sentinel, recorded.sentinel, PORTS_DEFAULT.sentinel).await?;
    let http = bind("--http-port", asked.http, recorded.http, PORTS_DEFAULT.http).await?;
    let endpoints = Endpoints {
        primary: primary.local_addr()?,
        reader: reader.local_addr()?,
        sentinel: sentinel.local_addr()?,
        http: http.local_addr()?,
    };
    controller.set_ports(Ports {
        primary: endpoints.primary.port(),
        reader: endpoints.reader.port(),
        sentinel: endpoints.sentinel.port(),
        http: endpoints.http.port(),
    })?;

    let (orders_sender, orders) = mpsc::channel(ORDERS_MAX);
    let (view, events) = (controller.view(), controller.events());
    let webhooks = Webhooks::start(settings.webhooks.as_ref(), Some(settings.name()), &events).map_err(io::Error::other)?;
    let mut services = JoinSet::new();
    services.spawn(announce::run(events.replay(), view.clone()));
    services.spawn(proxy::serve(primary, Target::Primary, view.clone()));
    services.spawn(proxy::serve(reader, Target::Reader, view.clone()));
    let desk = Desk {
        view: view.clone(),
        orders: orders_sender,
        events,
        settings: Arc::new(settings),
        folder: folder_path,
        turn: Arc::default(),
    };
    services.spawn(sentinel::serve(sentinel, Sentinel { desk: desk.clone(), address: endpoints.sentinel }));
    services.spawn(http::serve(http, Http { desk, endpoints, token, webhooks: webhooks.tallies() }));

    let mut ready = view;
    services.spawn(async move {
        // Told once writes are taken: whoever waits for this line may begin.
        if ready.wait_for(|view| view.primary.is_some()).await.is_ok() {
            tell_ready(&endpoints, &place);
            crate::cli::notify(&[NotifyState::Ready]);
        }
    });
    let end = async {
        let name = tokio::select! {
            name = signal => name,
            () = parent_ended(), if is_with_parent => "the end of the process that started it",
        };
        tracing::info!("{name}: the replicas end, then the primary");
        crate::cli::notify(&[NotifyState::Stopping]);
    };
    let outcome = controller.run(orders, end).await;
    webhooks.end().await;
    services.shutdown().await;
    outcome
}

/// Waits for the folder: the controller of a parent that was killed may still be ending its nodes.
async fn take_over(path: &Path) -> io::Result<Folder> {
    let deadline = Instant::now() + TAKE_OVER_MAX;
    loop {
        match Folder::open(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(PROGRESS_PERIOD).await;
            }
            opened => return opened,
        }
    }
}

fn tell_ready(endpoints: &Endpoints, place: &str) {
    let Endpoints { primary, reader, sentinel, http } = endpoints;
    let mut out = io::stdout();
    // A closed standard output is no reason not to serve.
    let told = writeln!(
        out,
        "cache-node cluster ready on {primary} (reader {reader}, sentinel {sentinel}, http {http}, pid {}, dir {place})",
        std::process::id()
    )
    .and_then(|()| out.flush());
    drop(told);
}

/// Completes when standard input closes.
async fn parent_ended() {
    let (ended, parent) = oneshot::channel();
    // A thread of its own: the end of the runtime would wait for a blocking task of its own.
    thread::spawn(move || {
        let read = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop((read, ended));
    });
    let gone = parent.await;
    drop::<Result<(), _>>(gone);
}

/// The listener of an endpoint: as asked for, or where it was before, or where it is by default. 0 takes a free port, and keeps it.
async fn bind(option: &str, asked: Option<u16>, recorded: u16, default: u16) -> io::Result<TcpListener> {
    let port = match asked {
        Some(0) => recorded,
        Some(port) => port,
        None if recorded != 0 => recorded,
        None => default,
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen on {address}: {error}; choose another port with {option}, or 0 for a free one"),
        )
    })
}
