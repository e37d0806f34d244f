package client

import (
	"context"
	"errors"
	"slices"
	"time"

	"relaymarket/client/devices"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

const (
	// logTTL outlives two times that everything is said again: whoever looks once a month misses nothing of it.
	logTTL = 3 * state.RestateEvery
	// sparePulls is how often a relay serves a batch, beside once to each device that is in use, the one that wrote it too: for such as
	// come later. Each is reserved in the credit of whoever pays.
	sparePulls = 2
	// logMaxPulls is how often at most.
	logMaxPulls = 16
	// leastBatch is the largest record that a relay has to take at least to be of use here: a friend with his card.
	leastBatch = 24 << 10
	// maxBatches bounds what is told at once. The rest follows with the next Sync.
	maxBatches = 64
	// tellTime bounds how long a command that is done waits until the other devices are told.
	tellTime = 5 * time.Second
)

// Device is what is known of one of the user's devices.
type Device = state.Device

// ErrNoDevice: no device has this id or name.
var ErrNoDevice = errors.New("no device of yours is called so")

// Devices lists the user's devices, as far as they were heard of; this one first.
func (c *Client) Devices(ctx context.Context) ([]Device, error) { return c.state.Devices(ctx) }

// NameDevice calls a device so on all of them. The others are told with the next Sync.
func (c *Client) NameDevice(ctx context.Context, id devices.ID, name string) error {
	if err := checkText(name, 1, protocol.MaxLabel); err != nil {
		return err
	}
	return c.state.ChangeDevice(ctx, id, func(d *devices.Device) { d.Name = name })
}

// OwnDevice is this device's id.
func (c *Client) OwnDevice() devices.ID { return devices.ID(c.state.Device()) }

// RemoveDevice takes a device off the list: nothing is written for it any more. It takes nothing from the device itself, which
// has the keys. If it is heard of again, the list says so.
func (c *Client) RemoveDevice(ctx context.Context, id devices.ID) error {
	return c.state.ChangeDevice(ctx, id, func(d *devices.Device) { d.Removed = true })
}

// SayHello has the user's other devices told of this one, which got the keys from elsewhere: they then tell it everything.
func (c *Client) SayHello(ctx context.Context) error { return c.state.SayHello(ctx) }

// batchOf is what a device of the user says in a record to himself; nil for any other message. One that cannot be read is
// left alone, and so is an entry: everything is said again.
func (c *Client) batchOf(m *state.Message) *devices.Batch {
	if m.From != c.Key() || m.Tag != protocol.ReceiptTag || m.ContentType != devices.LogType || m.Plain {
		return nil
	}
	b, refused, err := devices.Read(m.Body)
	if err != nil {
		c.log.Warn("what another device of yours says cannot be read", "record", m.ID, "error", err)
		return nil
	}
	if len(refused) > 0 {
		c.log.Warn("some of what another device of yours says cannot be read", "record", m.ID, "entries", len(refused), "error", refused[0])
	}
	return b
}

// tellDevices queues what the user's other devices are to be told, in records to himself. It tells whether there was something. A device
// that does not know of a move looks on the relays that he left.
func (c *Client) tellDevices(ctx context.Context, own []Relay) (queued bool, err error) {
	gone, err := c.state.GoneRelays(ctx)
	if err != nil {
		return false, err
	}
	relays, err := c.taking(ctx, append(slices.Clone(own), gone...), protocol.ReceiptTag, false)
	if err != nil {
		return false, err
	}
	most := int64(devices.BatchBytes)
	var fit []Relay
	for _, r := range relays {
		if r.Bytes >= leastBatch {
			fit = append(fit, r)
			most = min(most, (r.Bytes-envelopeOverhead)/4*3*8/9-2048) // padding adds up to an eighth
		}
	}
	if len(fit) == 0 {
		return false, nil
	}
	living, err := c.state.Living(ctx)
	if err != nil {
		return false, err
	}
	for range maxBatches {
		more, err := c.state.EnqueueBatch(ctx, fit, int(most), func(b *devices.Batch) (*Outgoing, error) {
			m, err := c.sealBooks(c.Key(), c.sealing.Public(), string(b.Device), devices.LogType, b)
			if err == nil {
				m.Expires, m.MaxPulls, m.Body = c.now().Add(logTTL), min(living+sparePulls, logMaxPulls), []byte{} // what it says is in the state anyway
			}
			return m, err
		})
		if err != nil || !more {
			return queued, err
		}
		queued = true
	}
	return queued, nil
}

// tellSoon tells the other devices at once, if there are any, what this one did. What does not go through waits.
func (c *Client) tellSoon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTime)
	defer cancel()
	company, err := c.state.HasCompany(ctx)
	if err == nil && company {
		_, err = c.LeaveReceipts(ctx)
	}
	if err != nil {
		c.log.Info("the other devices are told later", "error", err)
	}
}
