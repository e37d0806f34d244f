package main

import (
	"fmt"

	"relaymarket/protocol"
)

// One plain, valid instance of each request, as members that a case then bends.

func writeMembers(c cast) members {
	return members{
		"type": `"write"`, "relay": quote(c.relay.Public.String()), "recordId": `"0193-a_B"`,
		"expires": fmt.Sprint(now + 86_400_000), "maxPulls": "8", "content": `"aGVsbG8="`,
	}
}

func gotMembers() members {
	root := leaf(0)
	return members{"type": `"got"`, "pageId": `"page-1"`, "root": quote(protocol.Hash(root).String())}
}

func listenMembers(c cast) members {
	return members{"type": `"listen"`, "senders": list(quote(c.alice.Public.String()))}
}

func admittedMembers(key protocol.PublicKey) members {
	return members{"key": quote(key.String()), "bytes": "65536", "records": "16"}
}

func admitMembers(c cast) members {
	return members{"type": `"admit"`, "keys": list(object(admittedMembers(c.alice.Public)), object(admittedMembers(c.carol.Public)))}
}

func targetedMembers(requestType, target string) members {
	return members{"type": quote(requestType), "target": quote(target)}
}

// cardMembers has a sealing key of a suite of the future, which is shorter than a real one.
func cardMembers(c cast) members {
	return members{
		"type": `"identity"`, "label": `"alice"`,
		"relays":  list(object(relayMembers("https://relay.example", c.relay.Public))),
		"sealing": list(object(futureSealing)),
	}
}

func relayMembers(address string, key protocol.PublicKey) members {
	return members{"address": quote(address), "pubkey": quote(key.String())}
}

var futureSealing = members{"suite": "200", "key": `"AAAA"`}

func announcementMembers() members {
	return members{
		"type": `"serverBroadcast"`, "addresses": `["https://relay.example"]`, "limits": object(limitMembers()),
		"terms": list(object(termMembers())), "seq": "7", "validUntil": fmt.Sprint(now + 7*86_400_000),
	}
}

// offerMembers are what an announcement has besides when its relay makes contracts.
func offerMembers() members {
	return members{
		"network": `"testnet4"`, "storageMsatPerGBDay": "40000", "bandwidthMsatPerGB": "25000", "openingPriceSat": "2000",
		"creditLimitSat": "2000", "bondPercent": "5", "minPrepaySat": "20000",
	}
}

func limitMembers() members {
	return members{
		"recordBytes": "1048576", "admittedBytes": "65536", "batchBytes": "8388608", "batchRecords": "1000",
		"pageBytes": "8388608", "pageRecords": "1000", "lifetimeMs": "31536000000", "maxPulls": "1000",
		"headerSeconds": "15", "bodySeconds": "60",
	}
}

func termMembers() members {
	return members{"type": `"grant"`, "payment": "false", "contact": `"ops@relay.example"`}
}
