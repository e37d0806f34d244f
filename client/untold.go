package client

import (
	"context"
	"encoding/json"
	"fmt"
)

// keepUntold keeps changes of friends' cards until somebody is there to be told of them.
func (c *Client) keepUntold(ctx context.Context, changes []CardChange) error {
	for _, change := range changes {
		data, err := json.Marshal(change)
		if err != nil {
			return err
		}
		if err := c.state.KeepUntold(ctx, data); err != nil {
			return err
		}
	}
	return nil
}

// takeUntold is what was kept, the oldest first. It is not kept any more.
func (c *Client) takeUntold(ctx context.Context) ([]CardChange, error) {
	kept, err := c.state.TakeUntold(ctx)
	if err != nil {
		return nil, err
	}
	var changes []CardChange
	for _, data := range kept {
		var change CardChange
		if err := json.Unmarshal(data, &change); err != nil {
			return nil, fmt.Errorf("a change of a card that was kept cannot be read: %w", err)
		}
		changes = append(changes, change)
	}
	return changes, nil
}
