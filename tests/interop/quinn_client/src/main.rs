//! A client of QUIC trackers, as the known ones are made with quinn: a new connection for each request, one
//! bidirectional stream, one JSON object, FIN, and the answer read to its end.
//!
//! `quinn-client ADDRESS ALPN[,ALPN…] ask`: the request comes on stdin, the answer goes to stdout, as they are.
//! `quinn-client ADDRESS ALPN[,ALPN…] download NAME INFO_HASH LENGTH`: announces, and only if that is answered asks
//! for the file; its bytes go to stdout. Whatever fails is one line on stderr, and the exit code 1.

use std::error::Error;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::{ServerCertVerified, ServerCertVerifier};
use rustls::{Certificate, ServerName, SignatureScheme};
use serde::{de::DeserializeOwned, Deserialize, Serialize};

const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_SIZE_MAX: usize = 64 << 20;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Serialize)]
struct AnnounceRequest<'a> {
    info_hash: &'a str,
    peer_id: String,
    port: u16,
    uploaded: u64,
    downloaded: u64,
    left: u64,
    event: &'a str,
    ip: Option<&'a str>,
}

#[derive(Deserialize)]
struct AnnounceAnswer {
    interval: u64,
    peers: Vec<Peer>,
    complete: u64,
    incomplete: u64,
}

#[derive(Deserialize)]
struct Peer {
    ip: String,
    port: u16,
}

#[derive(Serialize)]
struct FileRequest<'a> {
    file: &'a str,
}

#[derive(Deserialize)]
struct FileAnswer {
    data: Vec<u8>,
    filename: String,
    size: u64,
}

/// Takes any certificate, and the signatures that the known client takes: no Ed25519.
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &Certificate,
        _intermediates: &[Certificate],
        _server_name: &ServerName,
        _scts: &mut dyn Iterator<Item = &[u8]>,
        _ocsp_response: &[u8],
        _now: SystemTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PKCS1_SHA256,
        ]
    }
}

struct Client {
    address: SocketAddr,
    configuration: quinn::ClientConfig,
}

impl Client {
    fn new(address: SocketAddr, alpns: &str) -> Result<Client> {
        let mut tls = rustls::ClientConfig::builder()
            .with_safe_default_cipher_suites()
            .with_safe_default_kx_groups()
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth();
        tls.alpn_protocols = alpns.split(',').map(|name| name.as_bytes().to_vec()).collect();
        let mut transport = quinn::TransportConfig::default();
        transport.max_idle_timeout(Some(IDLE_TIMEOUT.try_into()?));
        let mut configuration = quinn::ClientConfig::new(Arc::new(tls));
        configuration.transport_config(Arc::new(transport));
        Ok(Client { address, configuration })
    }

    /// What the tracker answers, over a connection that only this request has.
    async fn ask(&self, request: &[u8]) -> Result<Vec<u8>> {
        let local: SocketAddr = if self.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
        let endpoint = quinn::Endpoint::client(local)?;
        let connecting = endpoint.connect_with(self.configuration.clone(), self.address, "localhost")?;
        let connection = connecting.await.map_err(|error| format!("connect: {error}"))?;
        let (mut outgoing, incoming) = connection.open_bi().await?;
        outgoing.write_all(request).await.map_err(|error| format!("write: {error}"))?;
        outgoing.finish().await.map_err(|error| format!("finish: {error}"))?;
        let answer = incoming.read_to_end(ANSWER_SIZE_MAX).await.map_err(|error| format!("read: {error}"))?;
        connection.close(0u32.into(), b"done");
        endpoint.wait_idle().await;
        Ok(answer)
    }

    async fn ask_json<Answer: DeserializeOwned>(&self, request: &impl Serialize) -> Result<Answer> {
        let answer = self.ask(&serde_json::to_vec(request)?).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&answer)).into())
    }

    async fn download(&self, name: &str, info_hash: &str, length: u64) -> Result<Vec<u8>> {
        let announce = AnnounceRequest {
            info_hash,
            peer_id: format!("-QC0001-{}", std::process::id()),
            port: 6881,
            uploaded: 0,
            downloaded: 0,
            left: length,
            event: "started",
            ip: None,
        };
        let announced: AnnounceAnswer = self.ask_json(&announce).await?;
        let peers: Vec<_> = announced.peers.iter().map(|peer| format!("{}:{}", peer.ip, peer.port)).collect();
        eprintln!(
            "every {} s; {} complete, {} incomplete; peers: {}",
            announced.interval,
            announced.complete,
            announced.incomplete,
            peers.join(" ")
        );
        let file: FileAnswer = self.ask_json(&FileRequest { file: name }).await?;
        if file.filename != name || file.size != file.data.len() as u64 {
            return Err(format!("{} bytes of {}, said to be {}", file.data.len(), file.filename, file.size).into());
        }
        Ok(file.data)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = match words[..] {
        [address, alpns, "ask"] => {
            let mut request = Vec::new();
            std::io::stdin().read_to_end(&mut request)?;
            Client::new(address.parse()?, alpns)?.ask(&request).await?
        }
        [address, alpns, "download", name, info_hash, length] => {
            Client::new(address.parse()?, alpns)?.download(name, info_hash, length.parse()?).await?
        }
        _ => return Err("quinn-client ADDRESS ALPNS ask | download NAME INFO_HASH LENGTH".into()),
    };
    std::io::stdout().write_all(&output)?;
    Ok(())
}
