package main

import (
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"relaymarket/protocol"
)

func (p program) idCommand() *cobra.Command {
	s := newSettings(p.environ)
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "id",
		Example: "  relayd id",
		Short:   "Show the relay's key and the addresses it announces",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.load(p.environ, cmd.Flags()); err != nil {
				return err
			}
			key, err := s.readKey()
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(p.out).Encode(struct {
					Key       string   `json:"key"`
					Relay     string   `json:"relay"`
					Addresses []string `json:"addresses"`
				}{key.Public().String(), key.Public().Bech32(), append([]string{}, s.addresses...)})
			}
			addresses := strings.Join(s.addresses, ", ")
			if addresses == "" {
				addresses = "none: set address"
			}
			_, err = fmt.Fprintf(p.out, "%s\n  hex        %s\n  listens    %s\n  announces  %s\n", key.Public().Bech32(), key.Public(), s.listen, addresses)
			return err
		},
	}
	s.flags(cmd.Flags(), "dir", "listen", "address")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as a JSON object")
	return cmd
}

func (p program) configCommand() *cobra.Command {
	s := newSettings(p.environ)
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show every setting in force and where it comes from",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.load(p.environ, cmd.Flags()); err != nil {
				return err
			}
			if asJSON {
				return p.writeConfigJSON(s)
			}
			table := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
			_, _ = fmt.Fprintln(table, "SETTING\tVALUE\tFROM\tENVIRONMENT")
			for _, item := range s.all {
				_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", item.name, item.shown(), item.origin, item.environment())
			}
			return table.Flush()
		},
	}
	s.flags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	cmd.AddCommand(p.configCheckCommand())
	return cmd
}

func (p program) writeConfigJSON(s *settings) error {
	lines := json.NewEncoder(p.out)
	for _, item := range s.all {
		if err := lines.Encode(struct {
			Setting     string `json:"setting"`
			Value       string `json:"value"`
			From        origin `json:"from"`
			Environment string `json:"environment"`
		}{item.name, item.shown(), item.origin, item.environment()}); err != nil {
			return err
		}
	}
	return nil
}

func (p program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Example: "  relayd version",
		Short:   "Show which relayd this is",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(p.out, "relayd", version())
			return err
		},
	}
}

// version is what the Go command noted about the build, and what checks signatures in it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	parts := []string{info.Main.Version}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision", "vcs.time":
			parts = append(parts, s.Value)
		case "vcs.modified":
			if s.Value == "true" {
				parts = append(parts, "modified")
			}
		}
	}
	return strings.Join(append(parts, info.GoVersion, protocol.Implementation), " ")
}
