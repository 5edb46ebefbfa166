//! Joins the listeners' TLS of `net` to what `submission` asks for.

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::net::tcp::Stream;
use crate::net::tls::{ServerFacts, ServerTls};
use crate::submission::{AcceptTls, Accepted, TlsSession};

impl AcceptTls for ServerTls {
    fn accept(self: Arc<Self>, stream: Box<dyn Stream>) -> BoxFuture<'static, io::Result<Accepted>> {
        Box::pin(async move {
            let stream = self.acceptor().accept(stream).await?;
            let ServerFacts { version, cipher } = ServerFacts::of(stream.get_ref().1);
            Ok((Box::new(stream) as Box<dyn Stream>, TlsSession { version, cipher }))
        })
    }
}
