// Package discovery finds other Hearth devices on the local network, without
// configuration, and says what it tried.
//
// It owns two ways of being found, and a table of who was heard:
//
//   - a beacon: one small datagram (beacon.go) to an IPv4 multicast group, an
//     IPv6 link-local group and the IPv4 broadcast addresses, on every link. It
//     is quick (first sight at once, loss after 8 s) and knows the link a
//     datagram came by, which an IPv6 link-local address is nothing without;
//   - mDNS, as the service _hearth._udp (mdns.go), for networks that carry it
//     and nothing else, and for tools that list services.
//
// Either suffices alone. Both carry the same few facts: the protocol's version,
// the UDP port of the device's QUIC listener, and a pseudonym of 16 bytes that
// changes by the hour (pseudonym.go). No name of a person, device or drive is
// sent, and not the host's name either, except that a device which its user
// made visible adds a display name, for as long as it is visible. Who knows the
// recognition secret of a device recognises its pseudonym; for all others it is
// a stranger of this hour. That hides who somebody is from one network to the
// next, not from somebody who watches one wire all day: an address that keeps
// its port from one hour to the next links the two pseudonyms.
//
// It promises:
//
//   - Nothing heard is believed. A pseudonym can be repeated by anyone who heard
//     it, so "known" is a hint whom to dial, and the handshake decides. An
//     address is kept only if it lies on the link it was heard on: nobody can
//     make a device dial beyond its own network.
//   - What a network can make it store and do is bounded: 256 devices, 16
//     addresses each, 20 datagrams a second from one source and 400 from all.
//     Strangers never push out a known device, nor untried addresses one that
//     worked.
//   - A device that falls silent is gone within 10 s, if it was ever heard by
//     beacon; one that only mDNS knows, after it missed two rounds (50 s).
//   - A goodbye is not proof that somebody left, since anyone can send one. It
//     makes the service ask: who does not answer within two seconds is dropped,
//     and who does was never gone.
//   - Run owns every goroutine and ends them, with one exception that is not
//     ours: zeroconf announces for up to four seconds in a goroutine of its own,
//     which also ends by itself, on closed sockets.
//
// It imports no other package of Hearth. It is not a transport, it does not
// dial, and it keeps nothing on disk. On systems other than Linux it is untested.
package discovery
