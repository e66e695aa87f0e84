//! Where the children's output goes: quietly into a file for each name, or to the terminal behind the name.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use crate::fleet::limits::{LOG_FILE_MAX, LOG_LINE_MAX};

/// Where the output of the children goes.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    /// `NAME.log` in this folder.
    Files(PathBuf),
    /// Standard error, each line behind the name of its process.
    Terminal,
}

/// The output of one named process over all its lives. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<Mutex<Sink>>);

#[derive(Debug)]
struct Sink {
    target: Target,
    last_line: String,
}

#[derive(Debug)]
enum Target {
    File { path: PathBuf, file: Option<File>, size: u64 },
    Terminal { prefix: String },
}

impl Log {
    pub(crate) fn new(output: &Output, name: &str) -> Self {
        let target = match output {
            Output::Files(folder) => {
                let path = folder.join(format!("{name}.log"));
                let size = path.metadata().map_or(0, |metadata| metadata.len());
                Target::File { path, file: None, size }
            }
            Output::Terminal => Target::Terminal { prefix: prefix(name) },
        };
        Self(Arc::new(Mutex::new(Sink { target, last_line: String::new() })))
    }

    /// The last line that was written: when a process ends at once, this says why.
    pub(crate) fn last_line(&self) -> String {
        self.0.lock().last_line.clone()
    }

    /// Where to look for more, for people.
    pub(crate) fn place(&self) -> String {
        match &self.0.lock().target {
            Target::File { path, .. } => path.display().to_string(),
            Target::Terminal { .. } => "the lines above".to_owned(),
        }
    }

    /// Copies everything from `source` until it ends.
    pub(crate) async fn copy(self, source: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(source);
        while let Ok(Some(line)) = read_line(&mut reader).await {
            self.write(&line);
        }
    }

    /// A short write to the page cache, so it is done here and not on a thread of its own.
    fn write(&self, line: &str) {
        let mut sink = self.0.lock();
        if !line.trim().is_empty() {
            line.trim_end().clone_into(&mut sink.last_line);
        }
        match &mut sink.target {
            // A supervisor whose own output is gone goes on: the shop matters more than its log.
            Target::Terminal { prefix } => {
                let _ = writeln!(std::io::stderr(), "{prefix}{}", line.trim_end());
            }
            Target::File { path, file, size } => {
                if *size >= LOG_FILE_MAX {
                    let _ = std::fs::rename(&*path, path.with_extension("log.1"));
                    *file = None;
                    *size = 0;
                }
                if file.is_none() {
                    *file = OpenOptions::new().create(true).append(true).open(&*path).ok();
                }
                if let Some(file) = file {
                    let _ = writeln!(file, "{}", line.trim_end());
                    *size += line.len() as u64 + 1;
                }
            }
        }
    }
}

/// The next line, or a part of one that is longer than [`LOG_LINE_MAX`]; `None` at the end.
pub(crate) async fn read_line(reader: &mut BufReader<impl AsyncRead + Unpin>) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    let read = reader.take(LOG_LINE_MAX).read_until(b'\n', &mut line).await?;
    Ok((read > 0).then(|| String::from_utf8_lossy(&line).into_owned()))
}

/// The name in a colour of its own, when the terminal shows colours.
fn prefix(name: &str) -> String {
    if !std::io::stderr().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return format!("{name:>6} | ");
    }
    const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 31];
    let sum: usize = name.bytes().map(usize::from).sum();
    let colour = COLOURS.get(sum % COLOURS.len()).copied().unwrap_or(36);
    format!("\x1b[{colour}m{name:>6}\x1b[0m | ")
}

#[cfg(test)]
mod tests {
    use crate::fleet::limits::LOG_LINE_MAX;
    use crate::fleet::output::{Log, Output};

    #[tokio::test]
    async fn lines_go_to_the_file_and_the_last_is_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = Log::new(&Output::Files(folder.path().to_owned()), "A");
        log.clone().copy(&b"one\ntwo\n\n"[..]).await;
        assert_eq!(log.last_line(), "two");
        let text = std::fs::read_to_string(folder.path().join("A.log")).expect("the log was written");
        assert_eq!(text, "one\ntwo\n\n");
    }

    #[tokio::test]
    async fn a_line_without_end_does_not_fill_the_memory() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = Log::new(&Output::Files(folder.path().to_owned()), "A");
        let endless = vec![b'x'; LOG_LINE_MAX as usize * 3];
        log.clone().copy(&endless[..]).await;
        assert_eq!(log.last_line().len() as u64, LOG_LINE_MAX);
    }
}
