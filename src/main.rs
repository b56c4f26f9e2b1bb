//! The process's life: flags, settings, log, then the service or a subcommand, and an exit code.

#[cfg(target_os = "linux")]
mod allocator;

use kafka_inlet::{
    app, check,
    cli::{self, Command},
    config::{self, Config, Overrides},
    health, kafka,
    spool::{self, control},
    telemetry,
};
use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

/// `EX_USAGE` of sysexits.h: what was asked for makes no sense, and starting again will not help.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Serve(overrides)) => serve(overrides),
        Ok(Command::Check { write }) => {
            with_settings(Overrides::default(), |config| exit_code(check::run(&config, write)))
        }
        Ok(Command::Health) => {
            with_settings(Overrides::default(), |config| match health::check(&config.http) {
                Ok(()) => ExitCode::SUCCESS,
                Err(unhealthy) => fail(unhealthy),
            })
        }
        Ok(Command::Spool(request)) => see_to_spool(request),
        Ok(Command::Version) => say(concat!("kafka-inlet ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Help) => say(cli::HELP),
        Err(usage_error) => refuse(usage_error),
    }
}

fn serve(overrides: Overrides) -> ExitCode {
    with_settings(overrides, |config| match app::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the service ends");
            if error.is_of_settings() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    })
}

/// Without a log: what is printed is for people or for a pipe.
fn see_to_spool(request: spool::Request) -> ExitCode {
    let config = match config::from_environment(Overrides::default(), kafka::client::check_property) {
        Ok((config, _)) => config,
        Err(faults) => return refuse(faults),
    };
    match control::run(&config, request) {
        Ok(done) => exit_code(done),
        Err(error) if error.is_of_usage() => refuse(error),
        Err(error) => fail(error),
    }
}

/// Loads the settings and sets up the log, which both belong to everything but the help.
fn with_settings(overrides: Overrides, run: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    let (config, warnings) = match config::from_environment(overrides, kafka::client::check_property) {
        Ok(loaded) => loaded,
        Err(faults) => return refuse(faults),
    };
    if let Err(error) = telemetry::tracing::init(&config.log, config.kafka.embedded) {
        return fail(error);
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    run(config)
}

fn exit_code(fine: bool) -> ExitCode {
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A closed standard output is nobody's loss.
fn say(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// A closed standard error leaves the exit code to tell.
fn refuse(reason: impl Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "{reason}");
    ExitCode::from(USAGE)
}

/// As [`refuse`], for what may go well another time.
fn fail(reason: impl Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "{reason}");
    ExitCode::FAILURE
}
