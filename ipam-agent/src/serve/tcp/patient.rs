//! A client's stream that ends when the client doesn't take what it asked for.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::Phase;

/// How long a client may take over an answer that is ready, or over a line of those that
/// come one by one; not from one byte to the next.
const PATIENCE: Duration = Duration::from_secs(30);

/// The stream, and since when something has been waiting to be taken.
pub(super) struct Patient<S> {
    stream: S,
    phase: Phase,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, phase: Phase) -> Self {
        Self {
            stream,
            phase,
            deadline: None,
        }
    }

    /// What a write came to, or that there was enough patience.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            self.phase.set_stalled();
            let deadline = self
                .deadline
                .get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.phase.set_flowing();
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called when everything was written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.deadline = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::{Instant, timeout},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_or_a_byte_now_and_then_is_given_up() {
        for trickle in [false, true] {
            let (ours, mut theirs) = duplex(16);
            let mut patient = Patient::new(ours, Phase::default());
            let began = Instant::now();
            let reader = tokio::spawn(async move {
                loop {
                    sleep(Duration::from_secs(1)).await;
                    if trickle {
                        let _ = theirs.read_u8().await;
                    }
                }
            });
            let written = patient.write_all(&[0; 4096]).await;
            let error = written.expect_err("nobody took it");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            let took = began.elapsed();
            assert!(took >= PATIENCE && took < PATIENCE * 2, "{took:?}");
            reader.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_line_by_line_is_not() {
        let (ours, mut theirs) = duplex(16);
        let mut patient = Patient::new(ours, Phase::default());
        let reader = tokio::spawn(async move {
            let mut line = [0; 64];
            for _ in 0..20 {
                sleep(Duration::from_secs(10)).await;
                theirs.read_exact(&mut line).await.expect("a line");
            }
        });
        for _ in 0..20 {
            patient.write_all(&[0; 64]).await.expect("taken");
            patient.flush().await.expect("flushed");
        }
        timeout(PATIENCE, reader)
            .await
            .expect("in time")
            .expect("read");
    }
}
