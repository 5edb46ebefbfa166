//! The floor: a program that does only what nobody can avoid — read SMTP, append, group fdatasync,
//! answer. It keeps no queue and delivers nothing.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

type Append = (Vec<u8>, oneshot::Sender<()>);

/// Serves until killed; prints its port on standard output.
pub async fn serve(file: PathBuf) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let (appends, queue) = std::sync::mpsc::sync_channel::<Append>(4096);
    std::thread::spawn(move || committer(File::create(file), queue));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let appends = appends.clone();
        tokio::spawn(async move { session(stream, appends).await });
    }
}

/// One write and one fdatasync for whatever waits.
fn committer(file: std::io::Result<File>, queue: std::sync::mpsc::Receiver<Append>) {
    let mut file = file.expect("the floor's file can be created");
    let mut buffer = Vec::new();
    while let Ok((bytes, done)) = queue.recv() {
        let mut waiting = vec![done];
        buffer.clear();
        buffer.extend_from_slice(&bytes);
        while waiting.len() < 256 {
            let Ok((bytes, done)) = queue.try_recv() else { break };
            buffer.extend_from_slice(&bytes);
            waiting.push(done);
        }
        file.write_all(&buffer).and_then(|()| file.sync_data()).expect("the floor can write");
        for done in waiting {
            let _ = done.send(());
        }
    }
}

async fn session(mut stream: TcpStream, appends: std::sync::mpsc::SyncSender<Append>) -> std::io::Result<()> {
    stream.write_all(b"220 floor\r\n").await?;
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        let line = until(&mut stream, &mut buffer, b"\r\n").await?;
        match line.first().copied().unwrap_or(0).to_ascii_uppercase() {
            b'E' => stream.write_all(b"250-floor\r\n250 PIPELINING\r\n").await?,
            b'D' => {
                stream.write_all(b"354 go\r\n").await?;
                let body = until(&mut stream, &mut buffer, b"\r\n.\r\n").await?;
                let (done, written) = oneshot::channel();
                appends.send((body, done)).map_err(std::io::Error::other)?;
                written.await.map_err(std::io::Error::other)?;
                stream.write_all(b"250 ok\r\n").await?;
            }
            b'Q' => return Ok(()),
            _ => stream.write_all(b"250 ok\r\n").await?,
        }
    }
}

/// Takes everything up to and with `end` off the buffer, reading as needed.
async fn until(stream: &mut TcpStream, buffer: &mut Vec<u8>, end: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut searched = 0usize;
    loop {
        if let Some(at) = memchr::memmem::find(&buffer[searched..], end) {
            let rest = buffer.split_off(searched + at + end.len());
            return Ok(std::mem::replace(buffer, rest));
        }
        searched = buffer.len().saturating_sub(end.len());
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}
