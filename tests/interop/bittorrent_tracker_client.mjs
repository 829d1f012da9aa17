// One announce and one scrape by npm's bittorrent-tracker 9:
// `node bittorrent_tracker_client.mjs URL INFO_HASH PEER_ID PORT LEFT` prints what came of them as JSON.
import Client from "bittorrent-tracker";

const [url, infoHash, peerId, port, left] = process.argv.slice(2);
const client = new Client({ infoHash, peerId, announce: [url], port: Number(port) });
const peers = [];

function fail(error) {
  console.error(error.message);
  process.exit(1);
}

client.on("error", fail);
client.on("warning", fail);
client.on("peer", (address) => peers.push(address));
client.once("update", () => setImmediate(() => client.scrape()));
client.once("scrape", ({ complete, incomplete }) => {
  console.log(JSON.stringify({ peers, complete, incomplete }));
  process.exit(0);
});
client.start({ left: Number(left) });
