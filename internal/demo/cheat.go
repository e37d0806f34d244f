package main

import "context"

func aCheat(ctx context.Context, s *stage, c *cast) error { return nil }
