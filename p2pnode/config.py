"""Every limit, timeout and default: a name, a unit, a reason.

Sizes are bytes and times seconds unless the name says otherwise. Nothing is read from a file or the
environment here; the command line does that and passes values to `Node`.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# -- wire --------------------------------------------------------------------------------------------------

PROTOCOL_VERSION: Final = 1  # of `p2pnode/1`; both sides state it, neither refuses a higher one
ALPN: Final = "p2pnode/1"
FRAME_SIZE_MAX: Final = 64 * KIB  # a page of a list fits; nothing larger is ever one message
WORD_LENGTH_MAX: Final = 64  # characters of a node's name, zone, role or agent
NAME_LENGTH_MAX: Final = 1024  # characters of a torrent's name or of a prefix
ERROR_TEXT_LENGTH_MAX: Final = 512  # characters: one line for a person
RANGES_PER_MESSAGE_MAX: Final = 1024  # piece ranges: 1024 × ~10 bytes fit a frame many times over
KEYS_PER_MAP_MAX: Final = 64  # keys of one msgpack map: room for those of later versions
ADDRESSES_PER_NODE_MAX: Final = 8  # a node with more interfaces picks its best ones
LIST_PAGE_MAX: Final = 48  # rows: 48 × (name of 1024 + 70) stays below FRAME_SIZE_MAX
SOURCES_PER_MESSAGE_MAX: Final = 50  # as trackers answer by default (BEP 3 practice)
PEERS_PER_MESSAGE_MAX: Final = 100  # rows: 100 × ~500 bytes stays below FRAME_SIZE_MAX
METAINFO_SIZE_MAX: Final = 64 * MIB  # our own metainfo: 100,000 files need 10
FOREIGN_METAINFO_SIZE_MAX: Final = 10_000_000  # a `.torrent` from elsewhere
CHUNK_SIZE_MAX: Final = 1 * MIB  # what one FileChunk may carry: bounds the receiver's memory
CHUNK_SIZE: Final = 1 * MIB  # what we send: the fewer, the cheaper; the other side stores it in smaller runs

LAN_DATAGRAM_SIZE_MAX: Final = 1400  # bytes, as BEP 14 has it: what Ethernet carries in one piece
LAN_HASHES_MAX: Final = 20  # torrents in one such datagram: 52 bytes each

UDP_SCRAPE_HASHES_MAX: Final = 74  # torrents in one scrape over UDP (BEP 15): more do not fit 1,500 bytes
UDP_REQUEST_SIZE_MAX: Final = 2 * KIB  # bytes: no announce of BEP 15 needs more, URL and all

# -- torrent -----------------------------------------------------------------------------------------------

BLOCK_SIZE: Final = 16 * KIB  # leaf of the Merkle tree (BEP 52)
PIECE_LENGTH_MIN: Final = 16 * KIB
PIECE_LENGTH_MAX: Final = 16 * MIB  # ours; up to 2**29 is read from others
FOREIGN_PIECE_LENGTH_MAX: Final = 2**29
PIECES_AIM: Final = 1024  # the table of piece lengths keeps a torrent at or below this many while it can
PIECES_MAX: Final = 2**21  # in any torrent that is read
BLOCKS_PER_PIECE_MAX: Final = FOREIGN_PIECE_LENGTH_MAX // BLOCK_SIZE
FOREIGN_PIECE_LENGTH_MIN: Final = 1 * KIB  # v1 pieces; fewer bytes are hardly more than their hash
COMPONENT_SIZE_MAX: Final = 255  # bytes of UTF-8 in a file name, as file systems have it
PATH_DEPTH_MAX: Final = (
    64  # components below a torrent's name; deeper trees are attacks on those who walk them
)
TRACKERS_MAX: Final = 32  # of a torrent or a magnet link: what is beyond is left out
WEB_SEEDS_MAX: Final = 32  # the same
URL_LENGTH_MAX: Final = 2048  # characters; longer ones are left out
MAGNET_LENGTH_MAX: Final = (
    64 * KIB
)  # characters: all trackers and web seeds at their longest, hardly ever more
MAGNET_PEERS_MAX: Final = 32  # addresses of peers in a magnet link: what is beyond is left out
TICKET_LENGTH_MAX: Final = 8 * KIB  # characters: all nodes with all addresses
TICKET_NODES_MAX: Final = 8  # who else has the file is asked of these
BENCODE_DEPTH_MAX: Final = 100
BENCODE_TOKENS_MAX: Final = 3_000_000
BENCODE_INTEGER_DIGITS_MAX: Final = 20  # -2**63 has 19 and a sign

# -- quic --------------------------------------------------------------------------------------------------

IDLE_TIMEOUT_S: Final = 10.0  # a vanished peer is noticed within this: CLOSE can be lost
KEEP_ALIVE_S: Final = 3.0  # PING when nothing was received for so long; three fit into the idle timeout
DIAL_TRY_TIMEOUT_S: Final = 5.0  # one handshake attempt
DIAL_TIMEOUT_S: Final = 20.0  # all attempts on one address
ACCEPT_HANDSHAKE_TIMEOUT_S: Final = 10.0  # a handshake that an accepted connection does not finish
HALF_OPEN_MAX: Final = 256  # accepted connections whose handshake is not finished
CONNECTIONS_MAX: Final = 4096  # accepted connections in all; 70 KiB each
CONNECTIONS_PER_NETWORK_MAX: Final = 1024  # of them from one IPv4 address or IPv6 /64: a site behind a NAT
STREAM_RECEIVE_WINDOW: Final = 2 * MIB  # unread bytes a peer may make us hold for one stream
CONNECTION_RECEIVE_WINDOW: Final = 4 * MIB  # the same for one connection
STREAM_RECEIVE_WINDOW_MIN: Final = 16 * KIB  # where a rate limit makes it smaller: metainfo must get through
RECEIVE_WINDOW_GROWTH_MAX: Final = 4  # times both, on paths that hold as much and while it is read at once
SEND_BUFFER: Final = 1 * MIB  # unsent and unacknowledged bytes we hold for one stream …
CONNECTION_SEND_BUFFER: Final = 2 * MIB  # the same for one connection; both grow with the congestion window …
SEND_BUFFER_GROWTH_MAX: Final = 4  # … up to so many times: what a path of 100 ms holds at 600 Mbit/s
SEND_BUFFER_MIN: Final = 64 * KIB  # … but each stream may hold this: slow ones must not silence the others
CONGESTION_WINDOW_MAX: Final = 16 * MIB  # 2-byte packet numbers allow 32,768 packets in flight
CLOSE_REASON_SIZE_MAX: Final = 200  # a longer reason may not fit the packet and wedges aioquic's close
RETRY_TOKEN_SIZE_MAX: Final = 512  # a longer one leaves no room in an Initial
TLS_MESSAGE_SIZE_MAX: Final = 64 * KIB  # aioquic joins a TLS message in quadratic time
CLOSE_REPEATS: Final = 3  # CLOSE is never acknowledged, so it is sent this often
CLOSE_INTERVAL_S: Final = 0.05  # between the repeats
DATAGRAM_SIZE: Final = 1200  # bytes of a QUIC datagram: every path carries this (RFC 9000 §14)
DATAGRAM_SIZE_MAX: Final = 16_000  # tried where a path carries more: aioquic writes frame lengths in 14 bits
HALF_OPEN_PER_NETWORK_MAX: Final = 64  # so that one IPv4 address or IPv6 /64 cannot take all of HALF_OPEN_MAX
INBOX_SIZE_MAX: Final = 4 * MIB  # received datagrams that a connection has not taken in yet
PACKETS_IN_FLIGHT_MAX: Final = 16_384  # half of what 2-byte packet numbers tell apart
PACKET_NUMBER_SKIP_MAX: Final = 512  # a packet number is left out within so many, to catch lying ACKs
KEY_UPDATE_PACKETS: Final = 2**22  # AES-GCM is safe for 2**23 packets under one key (RFC 9001 §6.6)
PROBE_INTERVAL_MAX_S: Final = 1.0  # between probes for lost packets, unless the round trip takes longer
PACING_GAIN: Final = 1.25  # RFC 9002 §7.7: a little faster than the window, or it is never filled …
PACING_GAIN_SLOW_START: Final = 2.0  # … and twice as fast while it doubles in each round trip
PACING_BURST_S: Final = 0.002  # of sending go together; half of it is waited for …
PACING_BURST_PACKETS_MIN: Final = 10  # … or so many packets, if the window is four times that (RFC 9002 §7.7)
PACING_BURST_PACKETS: Final = 256  # the most at once: the other connections get their turn after 1 ms of work
PACING_BURST_BYTES: Final = (
    1 * MIB
)  # the same where datagrams are large: the other side shall not wait for a whole window
PACING_CATCH_UP_S: Final = 0.005  # a driver that comes so late still sends what was due
PACING_RTT_MIN_S: Final = 0.001  # shorter round trips are paced as this: timers are coarser
SLOW_START_WINDOW_MIN: Final = 64 * KIB  # below it no delay ends slow start: on loopback all of it is noise
SLOW_START_PACKETS_MIN: Final = 16  # the same in datagrams: with large ones, fewer make no steady stream
CONGESTION_IDLE_S: Final = 2.0  # after nothing was in flight for so long, the window is found anew
REORDERING_MEMORY_S: Final = 10.0  # how much packets are overtaken is believed for so long, then half of it
STREAM_GAPS_MAX: Final = (
    1024  # missing parts of one stream: full packets make 874 in its first window; linear work
)
CRYPTO_GAPS_MAX: Final = 64  # the same for the handshake, whose remote is not known yet
ACK_PACKETS: Final = 64  # received and not acknowledged yet: acknowledge at once, not a little later
ACKS_PER_ROUND_TRIP: Final = (
    4  # at least, while packets come: a sender's window grows by what is acknowledged
)
ACK_DELAY_MAX_S: Final = 0.01  # well below the 25 ms that the transport parameters promise (RFC 9000 §18.2)
TAKE_IN_MAX: Final = 256  # datagrams between two looks at what they did: 240 tiny frames fit into each
STREAM_RESETS_PER_S: Final = 64  # of its own streams that a peer may reset, for ever …
STREAM_RESETS_BURST: Final = 512  # … and at once; more is a flood and ends the connection
UNVERIFIED_REPLIES_PER_S: Final = 200  # version negotiation and INVALID_TOKEN, to all the world together

# -- storage -----------------------------------------------------------------------------------------------

CHECKPOINT_BYTES: Final = 64 * MIB  # a power cut costs at most this much …
CHECKPOINT_INTERVAL_S: Final = 2.0  # … or this long
PARTIAL_SUFFIX: Final = ".p2pnode-part"  # beside the target, its name starting with a dot
JOURNAL_SUFFIX: Final = ".p2pnode-journal"

# -- tracker -----------------------------------------------------------------------------------------------

NODES_MAX: Final = 10_000  # nodes a registry knows at once; about 1 KiB each
NODES_PER_NETWORK_MAX: Final = 1024  # of them at one IPv4 address or IPv6 /64: a site behind a NAT, no flood
FILES_PER_NODE_MAX: Final = 10_000  # files one node may announce
OFFERS_MAX: Final = 200_000  # files announced by all nodes together; about 500 bytes each
OFFER_RANGES_MAX: Final = 48  # piece runs kept for one offer: 50 sources with so many fit one frame
OFFER_RANGES_TOTAL_MAX: Final = 1_000_000  # piece runs of all offers; about 120 bytes each
OFFER_RENEW_S: Final = (
    5.0  # a fetch tells its server no sooner again which pieces it has: they come all the time
)
PRESENCE_AFTER_LINK_LOST_S: Final = 10.0  # a node whose link broke may be back; longer than RECONNECT_MAX_S
RUMOUR_DIALS: Final = 8  # that may fail on one node's word about others: no way to have us flood anybody …
RUMOUR_DIAL_REGAINED_S: Final = (
    60.0  # … and one more after so long: an honest one tells of nodes that just left
)
RUMOURS_PER_TELLER_MAX: Final = 200  # nodes that one node tells us of: four answers
RUMOURS_MAX: Final = 4096  # of all of them: who tells most loses first; some 10 KiB each at worst
RUMOUR_LASTS_S: Final = 600.0  # of one who says no more; longer than all his dials take to come back
RUMOUR_TELLERS_MAX: Final = 256  # nodes that tell us of others; who spoke longest ago is forgotten
PORTS_NEVER_DIALED: Final = frozenset({0, 53})  # no port at all; DNS, which answers strangers
TRACKER_INTERVAL_S: Final = 1800  # between two announces over HTTP and UDP (chihaya, aquatic) …
TRACKER_JSON_INTERVAL_S: Final = 60  # … and over QUIC, as its clients know it; half of each at the earliest
TRACKER_GRACE_S: Final = 60  # a peer that is later than its interval and this is forgotten
TRACKER_NUMWANT: Final = 50  # peers told to who does not say how many he wants …
TRACKER_NUMWANT_MAX: Final = 200  # … and at most
TRACKER_PEERS_MAX: Final = 1_000_000  # of all torrents together; about 120 bytes each
TRACKER_PEERS_PER_TORRENT_MAX: Final = 500_000  # larger swarms than were ever seen
TRACKER_PEERS_PER_NETWORK_MAX: Final = 20_000  # of an IPv4 address or IPv6 /64: torrents of one seed box …
TRACKER_PEERS_PER_NETWORK_AND_TORRENT_MAX: Final = 64  # … and a site behind a NAT that fetches the same
TRACKER_EXPIRY_BATCH: Final = 1000  # peers forgotten before other tasks have their turn: some 5 ms
TRACKER_EXPIRY_INTERVAL_S: Final = 1.0  # how late a peer is forgotten
TRACKER_ANNOUNCES_BURST: Final = 8  # of one peer in one torrent at once: started, completed, and by hand …
TRACKER_ANNOUNCE_REGAINED_S: Final = 30.0  # … one more after so long, for ever; more get no peers
TRACKER_NETWORK_ANNOUNCES_BURST: Final = 5000  # of an IPv4 address or IPv6 /64 at once: a seed box starts …
TRACKER_NETWORK_ANNOUNCES_PER_S: Final = 100.0  # … and for ever; more get no peers
TRACKER_FLOOD_FACTOR: Final = 2  # who is so many bursts beyond is not heard any more
UDP_CONNECTION_LASTS_S: Final = (
    120  # whole seconds; what BEP 15 grants an id: a client uses it for half of it
)

# -- the tracker's JSON and the files it seeds -------------------------------------------------------------

JSON_REQUEST_SIZE_MAX: Final = 64 * KIB  # all of a request; a query with its context is the longest
JSON_FILE_SIZE_MAX: Final = 5 * MIB  # each byte costs 3.6 as an array of numbers: larger files go other ways
JSON_FILE_STEP: Final = (
    64 * KIB
)  # of a file, turned into numbers in one go: 0.6 ms in which nothing else happens
JSON_ERROR_TEXT_LENGTH_MAX: Final = 230  # characters, at most 4 bytes each: an error answer is below 1 kB
AI_TIMEOUT_S: Final = 120.0  # for a whole answer of the AI service; less than our client waits for one
AI_ANSWER_SIZE_MAX: Final = 1 * MIB  # of the AI service: a book, but not two
AI_QUERIES_AT_ONCE: Final = 16  # others wait for their turn, within the same time
AI_QUERIES_MAX: Final = 64  # asked or waiting, of all clients …
AI_QUERIES_PER_NETWORK_MAX: Final = 4  # … and of one IPv4 address or IPv6 /64: nobody has all turns
PEER_ID_SIZE_MAX: Final = 64  # bytes of UTF-8 in JSON; the known client's has 9 to 28 characters

# -- doors for programs that others wrote -------------------------------------------------------------------

DOOR_UNIDIRECTIONAL_STREAMS: Final = 8  # at a time: HTTP/3 needs three, and may open some of unknown types
DOOR_LANGUAGE_WAIT_S: Final = (
    1.0  # for HTTP/3's control stream, when a request that may be HTTP/3 came before it
)
DOOR_IDLE_TIMEOUT_S: Final = 120.0  # a connection on which nothing is asked; longer than JSON's interval
HTTP09_FILES_AT_ONCE: Final = 4  # of one connection: each is an open file; more wait for their turn
HTTP09_STEP: Final = 256 * KIB  # of a file, read in one hop to a thread
HTTP3_FRAME_SIZE_MAX: Final = 16 * KIB  # of headers, as servers usually have it, or of settings
HTTP3_BODY_SIZE_MAX: Final = 64 * KIB  # of a request
HTTP3_REQUEST_TIMEOUT_S: Final = 10.0  # for the headers of a request; and for its body, once it is asked for
JSON_REQUEST_TIMEOUT_S: Final = 30.0  # for all of a request: 64 KiB at 17 kbit/s
JSON_ANSWERS_AT_ONCE: Final = 8  # of one connection: those of files take 18 MB each; more wait for their turn
DOOR_SEND_STALL_S: Final = (
    20.0  # a client that takes not even SEND_BUFFER_MIN of an answer in so long is gone
)

# -- swarm -------------------------------------------------------------------------------------------------

LOOK_INTERVAL_S: Final = 0.1  # between two looks at a whole download: how late a silence is noticed
REQUEST_BYTES_MIN: Final = (
    64 * KIB
)  # of small pieces, so many go together: a question costs as much as 50 KiB
COMING_LASTS_S: Final = 5.0  # what a peer expects is believed for so long …
COMING_LASTS_MAX_S: Final = 60.0  # … or three times as long as pieces take us, up to this

# -- node --------------------------------------------------------------------------------------------------

PROOF_TIMEOUT_S: Final = 10.0  # a side that proves no node key in time is closed
REQUEST_HEADER_TIMEOUT_S: Final = 10.0  # a stream whose first frame does not come is reset
PRESENCE_LASTS_S: Final = 30.0  # a peer announces again after a third of it
STALL_TIMEOUT_S: Final = 20.0  # no byte over a link that lives: another source continues (libtorrent: 20)
STALL_BYTES_MIN: Final = 1 * KIB  # in STALL_TIMEOUT_S: slower than 0.1 kB/s is dead
SEND_STALL_TIMEOUT_S: Final = 120.0  # a requester that stores no block for so long: a disk may stall a minute
STORE_INTERVAL_S: Final = 0.25  # blocks of a chunk that comes slowly are stored so often: a cut costs no more
RATE_LIMIT_MIN: Final = 1 * KIB  # a second; two dozen transfers that share less would count as stalled
RATE_BURST_S: Final = 0.1  # of a rate limit, at once after a pause: 1 % of what 10 s bring …
RATE_BURST_MIN: Final = 1000  # … but what a datagram holds: not even 5 % of what 10 s bring at 2 KiB/s
RATE_WINDOW_S: Final = 0.25  # of a rate limit is a stream's receive window: more than most round trips
RATE_PER_SOURCE_MIN: Final = 4 * KIB  # a second: a limit that is less is not spread over several sources
ACK_BYTES: Final = 4 * MIB  # FileChunkAck after this many …
ACK_INTERVAL_S: Final = 0.25  # … or this long
RESCAN_INTERVAL_S: Final = 5.0  # of shared directories
SETTLE_S: Final = 2.0  # a file changed more recently than this is still being written
REQUEST_BYTES: Final = 8 * MIB  # file bytes one FileRequest asks for: bounds what a lost source costs
REQUESTS_PER_SOURCE: Final = 3  # so that the link is busy while an answer travels
SOURCES_AT_ONCE: Final = 8  # links one download draws from
RETRY_AFTER_MIN_S: Final = 1.0  # a source that is busy is asked again no sooner, whatever it says
RETRY_AFTER_MAX_S: Final = 60.0  # … and no later, or a word would put it out of use for ever
RELIEVE_AFTER_S: Final = 1.0  # no byte for so long, and four times as long as usual: an idle source is asked
DIAL_NEXT_ADDRESS_S: Final = 1.0  # no answer for so long: dial the next address too (RFC 8305)
DIAL_CONNECT_TO_ME_AFTER_S: Final = 1.0  # no answer for so long: ask the server to make the other side dial
RECONNECT_MIN_S: Final = 0.5  # first wait before the server is dialed again; doubles with jitter …
RECONNECT_MAX_S: Final = 8.0  # … up to this, so that a restarted server is found soon
SOURCES_LINKED_MAX: Final = (
    48  # links one download keeps: a swarm of so many is one in which all know each other
)
SOURCES_TRUSTED_MAX: Final = (
    100  # nodes of whom a download hopes, once, that they give; of others it takes what comes
)
NEWS_INTERVAL_S: Final = 0.1  # between two `Have`s to one node of one torrent: a batch of pieces, not each …
NEWS_INTERVAL_FAR_S: Final = 1.0  # … and to a node of another zone
NEWS_FIRST_WORD_S: Final = 2.0  # a source that says nothing for so long has what others say it has
NEWS_PER_S: Final = 400  # `Have`s over one link, for ever: those of 40 torrents at once …
NEWS_BURST: Final = 4000  # … and at once, after a link stood still; more is a flood and ends it
NEWS_RANGES_AS_ONE: Final = 64  # piece ranges cost as much of that as a `Have`: they are what work it makes
NEWS_TORRENTS_PER_LINK_MAX: Final = 1024  # torrents that are talked of over one link; others are not
BAD_PIECES_MAX: Final = (
    2  # proven, of a node, in one download or all together: it is banned; one may be a bad disk
)
BANS_MAX: Final = 10_000  # nodes of which bad pieces are noted; about 100 bytes each
RESET_RETRY_S: Final = 1.0  # before a source that reset a request is asked again
METAINFO_NEXT_SOURCE_S: Final = 2.0  # without the metainfo for so long: another source is asked as well
METAINFO_AT_ONCE: Final = 4  # sources that send the metainfo at the same time: bounds the memory it takes
METAINFO_TIMEOUT_S: Final = 120.0  # for all of it: 64 MiB at 5 Mbit/s
METAINFO_ALONE_S: Final = 20.0  # a source keeps its place so long while others were never asked
METAINFO_RETRY_MAX_S: Final = 8.0  # SOURCES_RETRY_S doubles up to this for a source that gave none
SOURCES_RETRY_S: Final = 0.5  # the same question while nobody is linked
PROGRESS_INTERVAL_S: Final = 0.25  # between two FetchProgress: what an eye can follow
DIAGNOSIS_INTERVAL_S: Final = 1.0  # what is named as a transfer's bottleneck is that of so long
SOURCES_EAGER_S: Final = (
    2.0  # for so long a fetch that began asks every SOURCES_RETRY_S: others begin with it
)
SOURCES_ANSWER_S: Final = 0.5  # who has not said by now who has it: the answer counts at the next question
PEERS_ASKED_AT_ONCE: Final = (
    4  # peers that never were asked who has it; those that were, one each SOURCES_REFRESH_S
)
SEARCHES_MAX: Final = 1024  # torrents of which we know who was asked, or who asked; the oldest is forgotten
RECENT_ASKERS_MAX: Final = 64  # nodes of whom we know that they asked for one torrent …
RECENT_ASKER_S: Final = 5.0  # … for so long: by then they have announced what they fetch
SOURCES_REFRESH_S: Final = 5.0  # how often a running download asks who else has it
REQUESTS_PER_LINK_MAX: Final = 64  # streams one peer may have us work on; more are answered BUSY
DISK_THREADS: Final = 8  # blocking calls at once: disks gain nothing beyond
RUN_SIZE: Final = 256 * KIB  # blocks that go from a stream to a store together: what a lost source costs
STORE_AHEAD: Final = (
    1 * MIB
)  # runs of one request that wait while as many are written, in one hop to a thread
UPLOAD_READ_AHEAD: Final = (
    1 * MIB
)  # pieces read and hashed in one hop to a thread, one hop ahead of the network
UPLOAD_MEMORY_MAX: Final = (
    128 * MIB
)  # of pieces read and not yet acknowledged, for all requests; more are answered BUSY
UPLOAD_MEMORY_PER_NODE_MAX: Final = (
    REQUESTS_PER_SOURCE * (PIECE_LENGTH_MAX + CHUNK_SIZE)
)  # the same for those of one node: a download's, for a piece of the largest each, and the ends of those before
UPLOAD_MEMORY_PER_NETWORK_MAX: Final = UPLOAD_MEMORY_MAX // 2  # of an IPv4 address or IPv6 /64: keys are free
UPLOAD_TURNS: Final = 8  # batches being sent at a time: few, so that each is whole soon; windows have to grow
UPLOAD_TURN_MIN_S: Final = (
    0.25  # a turn that lasts longer may count no more: who takes slowly holds up nobody …
)
UPLOAD_TURN_MAX_S: Final = 1.0  # … it counts while it is no slower than usual, and no longer than this
UPLOAD_TURN_CHECK_S: Final = 0.05  # how often that is looked at while somebody waits
UPLOAD_ORDER_PATIENCE_S: Final = 3.0  # a request takes so long: the link's next goes beside it
UPLOAD_UNSENT_MAX: Final = 256 * KIB  # a batch has left when a quarter is unsent, but no more than this …
UPLOAD_UNSENT_MIN: Final = BLOCK_SIZE  # … or than this: the connection shall not run dry meanwhile
UPLOAD_INTEREST_LASTS_S: Final = 15.0  # after a request: a choked node asks again within a re-choke, 10 s
UPLOAD_REMEMBERED_S: Final = 600.0  # whoever asked nothing for so long counts as new
EVENTS_QUEUED_MAX: Final = 4096  # events a subscriber may leave unread before only outcomes reach it
REQUEST_TIMEOUT_S: Final = 15.0  # a small question; longer than the idle timeout, which tells more
BYE_TIMEOUT_S: Final = 1.0  # for telling everybody that we leave
DIAL_BACKS_MAX: Final = 16  # dials at once that our server asked for on others' behalf
MIRROR_INTERVAL_S: Final = 2.0  # between two looks of a mirroring peer at the server's list
MIRROR_RETRY_MAX_S: Final = 300.0  # RESCAN_INTERVAL_S doubles up to this for what could not be mirrored
MIRROR_OBSTACLE_RETRY_S: Final = 3600.0  # another file has its name and stays as it is: each try hashes that
MIRROR_AT_ONCE: Final = 2  # fetches a mirroring peer runs at a time
ITEMS_LISTED_MAX: Final = 100_000  # rows of a list that are paged through before we say it is too long
PUSHES_AT_ONCE: Final = 32  # pushed fetches a peer runs at a time
PUSH_SIZE_MAX: Final = 2**50  # default of --push-max: a peer's disk is the limit
NO_SOURCE_TIMEOUT_S: Final = 25.0  # `get` gives up when nobody has it for so long; longer than one dial
LAN_INTERVAL_S: Final = 300.0  # between two words about the same torrents (BEP 14) …
LAN_TORRENT_INTERVAL_S: Final = 60.0  # … and about one of them, if there is a reason for it (BEP 14)
LAN_GATHER_S: Final = 0.1  # what is to be said of several torrents goes together
LAN_TORRENTS_MAX: Final = 500  # told of by themselves; who looks for another is answered all the same
LAN_OFFERED_REFRESH_S: Final = 1.0  # how old our own view of what we offer may be
LAN_ANSWERS_PER_S: Final = 20.0  # datagrams to those who look for something …
LAN_ANSWERS_BURST: Final = 40  # … and at once
LAN_LOOKED_FOR_MAX: Final = 1000  # torrents that are looked for, and remembered who has them …
LAN_FOUND_MAX: Final = 50  # … of so many nodes each …
LAN_FOUND_LASTS_S: Final = 2 * LAN_INTERVAL_S + 60.0  # … who are forgotten when two words of theirs were lost

# -- HTTP over TCP ---------------------------------------------------------------------------------------

HTTP_HEAD_SIZE_MAX: Final = 32 * KIB  # request line and headers: browsers send 2 KiB, a full scrape 5
HTTP_URI_LENGTH_MAX: Final = 16 * KIB  # of these the address, with its query
HTTP_HEAD_TIMEOUT_S: Final = 10.0  # for a TLS handshake, and for a request's head from its first byte
HTTP_KEEP_ALIVE_S: Final = 75.0  # a connection without a request is closed: nobody holds our sockets for ever
HTTP_STALL_TIMEOUT_S: Final = 60.0  # the client takes nothing more of an answer: it is gone
HTTP_LINGER_S: Final = 2.0  # what still comes is read for so long after our last word, so that it arrives
HTTP_READ_SIZE: Final = 64 * KIB  # bytes read at once
HTTP_BODY_PARTS_QUEUED: Final = 4  # reads of a request's body that nobody wants; then reading waits
HTTP_STREAMS_MAX: Final = 100  # requests at once over one HTTP/2 connection (RFC 9113 §6.5.2 advises no less)
HTTP_REQUESTS_PER_CONNECTION_MAX: Final = 1_000_000  # then a client connects anew
HTTP_CONNECTIONS_MAX: Final = 4096  # at once; some 30 KiB each
HTTP_CONNECTIONS_PER_NETWORK_MAX: Final = (
    1024  # of them from one IPv4 address or IPv6 /64: a site behind a NAT
)
HTTP_BACKLOG: Final = (
    1024  # connections that the kernel keeps until we take them: a whole swarm starts at once
)
HTTP_SCRAPE_HASHES_MAX: Final = 128  # torrents in one scrape: their escaped hashes fill half an address
HTTP_RANGES_MAX: Final = 16  # of one file in one request; of more the whole is sent
HTTP_FILE_PART_SIZE: Final = 128 * KIB  # of a file, read and sent at a time: each is a hop to a thread
HTTP_FILES_MAX: Final = (
    512  # sent at a time: each holds two parts while its client takes nothing, 128 MiB in all
)
HTTP_FILES_PER_NETWORK_MAX: Final = 128  # of them to one IPv4 address or IPv6 /64: a site behind a NAT …
HTTP_FILES_RETRY_S: Final = 10  # … which may ask again after so long

# -- services ----------------------------------------------------------------------------------------------

REQUEST_LINES_PER_S_MAX: Final = (
    1000  # a line of a log is about 200 bytes: a flood shall not fill a disk with them
)
UDP_ANSWER_SIZE_MAX: Final = 1232  # bytes: what every path of IPv6 carries whole (RFC 8200 §5)
UDP_REFUSALS_PER_S: Final = (
    200  # errors to those who have not proven their address, to all the world together
)
UDP_REFUSALS_BURST: Final = 1000  # of them at once: those who held an id when the tracker was started again
UDP_TURN: Final = 64  # requests answered before the other tasks have their turn: about a millisecond

# -- trackers, as who asks them ----------------------------------------------------------------------------

TRACKER_INTERVAL_MIN_S: Final = 30.0  # a tracker that names less is asked no more often …
TRACKER_INTERVAL_MAX_S: Final = 3600.0  # … and one that names more no more seldom: it may have restarted

# -- the tracker's client ----------------------------------------------------------------------------------

TRACKER_TRIES: Final = (
    4  # of a request whose connection broke before the answer was whole; RECONNECT_MIN_S apart …
)
TRACKER_PATIENCE_S: Final = 20.0  # without a byte of an answer, over a connection that lives
TRACKER_QUERY_PATIENCE_S: Final = 180.0  # the same where an AI service thinks first
TRACKER_ANSWER_TIMEOUT_S: Final = 600.0  # for the whole of an answer: 26 MB at 350 kbit/s
TRACKER_ANSWER_SIZE_MAX: Final = (
    5 * 5 * MIB + 64 * KIB
)  # a file of 5 MiB as JSON, five characters a byte where somebody writes spaces
TRACKER_ANSWER_PEERS_MAX: Final = 1000  # of one answer; what is beyond is left out
TRACKER_LISTED_WITHIN_S: Final = 15.0  # a file that is new: SETTLE_S, RESCAN_INTERVAL_S, and it is hashed
TRACKER_GOODBYE_S: Final = 2.0  # for telling a tracker that we are done and leave

# -- announcing our own torrents --------------------------------------------------------------------------

ANNOUNCE_EARLIEST_S: Final = (
    300.0  # a fetch that needs peers asks after so long a tracker that names no minimum
)
ANNOUNCE_RETRY_MIN_S: Final = 60.0  # after a tracker's first failure, less up to half by chance; it doubles …
ANNOUNCE_RETRY_MAX_S: Final = 3600.0  # … up to this
TRACKER_ADDRESSES_MAX: Final = 4  # of one tracker's name that are tried
TRACKER_REDIRECTS_MAX: Final = 5
TRACKER_CONNECT_TIMEOUT_S: Final = 10.0  # to one address: another may answer
ANNOUNCE_TIMEOUT_S: Final = 60.0  # one announce in all: three tries over UDP (BEP 15)
ANNOUNCE_STOPPED_TIMEOUT_S: Final = 1.5  # for telling trackers that we leave: whoever ends a program waits
ANNOUNCE_ANSWER_SIZE_MAX: Final = 64 * KIB  # before and after gzip: 200 compact peers need 4 KiB
ANNOUNCE_PEERS_WANTED: Final = 50  # as most clients ask for, and most trackers give
TRACKER_TORRENTS_MAX: Final = 1000  # that a node announces to trackers
TRACKER_FOUND_MAX: Final = 200  # addresses of one torrent that are remembered
TRACKER_DIALS_AT_ONCE: Final = 8  # of addresses that trackers named: anybody may stand there
UDP_TRACKER_TRIES: Final = 9  # of one request, 15 s · 2**n apart: an hour in all (BEP 15)
UDP_TRACKER_TRY_S: Final = 15.0
UDP_TRACKER_ID_LASTS_S: Final = 60.0  # for so long a client may use a connection id (BEP 15)
