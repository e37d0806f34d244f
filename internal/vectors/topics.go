package main

// buildTopics makes every vector file by its name.
func buildTopics(previous map[string][]byte) map[string]any {
	c := newCast()
	sealed := sealedTopicOf(c, previous)
	return map[string]any{
		"keys.json":          keysTopic(c),
		"secrets.json":       secretsTopic(c),
		"canonical.json":     canonicalTopic(),
		"tagged.json":        taggedTopic(),
		"digests.json":       digestsTopic(c),
		"merkle.json":        merkleTopic(),
		"bip340.json":        bip340Topic(),
		"signatures.json":    signaturesTopic(c),
		"envelopes.json":     envelopesTopic(c),
		"requests.json":      requestsTopic(c),
		"freshness.json":     freshnessTopic(),
		"paths.json":         pathsTopic(c),
		"targets.json":       targetsTopic(c),
		"addresses.json":     addressesTopic(),
		"links.json":         linksTopic(c),
		"invitations.json":   invitationsTopic(c),
		"first-words.json":   firstWordsTopic(c),
		"cards.json":         cardsTopic(c),
		"announcements.json": announcementsTopic(c),
		"work.json":          workTopic(c),
		"authorization.json": authorizationTopic(c),
		"pages.json":         pagesTopic(c),
		"queries.json":       queriesTopic(c),
		"pulls.json":         pullsTopic(c),
		"padding.json":       paddingTopic(),
		"plain.json":         plainTopic(),
		"bodies.json":        bodiesTopic(),
		"files.json":         filesTopic(),
		sealedFile:           sealed.sealedTopic,
		sessionFile:          sessionTopic(c, sealed),

		"acknowledgements.json": acknowledgementsTopic(c),
	}
}
