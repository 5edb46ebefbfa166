//! Carries one question to the configured name servers and one reply back.
//!
//! UDP with EDNS0, retransmitted; TCP when the reply is truncated; the next server when one is
//! silent or cannot answer. Judges nothing but whether the reply answers the question asked.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsHandle, DnsRequestSender, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequest, DnsResponse, ResponseCode};
use hickory_resolver::proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Times round the list of servers that stay silent.
const ROUNDS: usize = 2;

tokio::task_local! {
    /// What went wrong with a question for the keys and delegations that validation goes by, during one
    /// lookup. The validator itself tells such trouble and a wrong signature alike.
    pub(super) static TROUBLE: RefCell<Option<String>>;
}

/// The recursive resolvers we ask, in order.
#[derive(Clone)]
pub(super) struct Upstream {
    servers: std::sync::Arc<[SocketAddr]>,
    timeout: Duration,
}

impl Upstream {
    pub(super) fn new(servers: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self { servers: servers.into(), timeout }
    }

    pub(super) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    async fn ask(self, request: DnsRequest) -> Result<DnsResponse, NetError> {
        let mut failure = NetError::NoConnections;
        let mut servers: Vec<_> = self.servers.to_vec();
        for _ in 0..ROUNDS {
            let mut silent = Vec::new();
            for server in servers {
                match self.ask_one(server, request.clone()).await {
                    Ok(response) => match response.response_code {
                        ResponseCode::NoError | ResponseCode::NXDomain => return Ok(response),
                        // It has tried and cannot; asking it again at once helps nobody.
                        code => failure = DnsError::ResponseCode(code).into(),
                    },
                    Err(error) => {
                        failure = error;
                        silent.push(server);
                    }
                }
            }
            servers = silent;
        }
        note(&request, &failure);
        Err(failure)
    }

    /// Asks one server.
    ///
    /// # Errors
    /// No usable reply; a reply with an error in its code is one.
    pub(super) async fn ask_one(
        &self,
        server: SocketAddr,
        request: DnsRequest,
    ) -> Result<DnsResponse, NetError> {
        let mut udp = UdpClientStream::builder(server, TokioRuntimeProvider::default())
            .with_timeout(Some(self.timeout))
            .build();
        let response = udp.send_message(request.clone()).first_answer().await?;
        if !response.truncation {
            return Ok(response);
        }
        // RFC 7766 §5: the rest is fetched over TCP.
        tokio::time::timeout(self.timeout, ask_tcp(server, &request)).await.map_err(|_| NetError::Timeout)?
    }
}

/// Keeps what went wrong for who asks, outside, what became of the lookup.
fn note(request: &DnsRequest, failure: &NetError) {
    let Some(query) = request.queries.first() else { return };
    if matches!(query.query_type(), RecordType::DNSKEY | RecordType::DS | RecordType::NS) {
        let text = format!("no answer about {} of {}: {failure}", query.query_type(), query.name());
        // Outside of a lookup nobody asks.
        let _ = TROUBLE.try_with(|trouble| trouble.borrow_mut().get_or_insert(text).len());
    }
}

async fn ask_tcp(server: SocketAddr, request: &DnsRequest) -> Result<DnsResponse, NetError> {
    let question = request.to_vec()?;
    let length = u16::try_from(question.len()).map_err(|_| NetError::Message("question too long"))?;
    let mut stream = TcpStream::connect(server).await?;
    // RFC 1035 §4.2.2: two octets of length first; one write, RFC 7766 §8.
    stream.write_all(&[&length.to_be_bytes(), question.as_slice()].concat()).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    let response = DnsResponse::from_buffer(reply)?;
    if response.id != request.id || response.queries != request.queries {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "reply to another question").into());
    }
    Ok(response)
}

impl DnsHandle for Upstream {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        Box::pin(stream::once(self.clone().ask(request)))
    }
}
