// One JSON request over QUIC by @matrixai/quic, which is made of quiche:
// `node quiche_client.mjs HOST PORT REQUEST` prints the answer. What it logs goes to stderr.
import { webcrypto } from "node:crypto";
import { QUICClient } from "@matrixai/quic";

const [host, port, request] = process.argv.slice(2);
const client = await QUICClient.createQUICClient({
  host,
  port: Number(port),
  localHost: "127.0.0.1",
  serverName: "localhost",
  crypto: { ops: { randomBytes: async (data) => void webcrypto.getRandomValues(new Uint8Array(data)) } },
  config: { verifyPeer: false, applicationProtos: ["h3"] },
});
const stream = client.connection.newStream();
const writer = stream.writable.getWriter();
await writer.write(new TextEncoder().encode(request));
await writer.close();
const parts = [];
for await (const part of stream.readable) parts.push(part);
console.log(Buffer.concat(parts).toString());
await client.destroy({ force: true });
