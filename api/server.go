package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"golang.org/x/time/rate"

	"relaymarket/api/refusals"
	"relaymarket/protocol"
)

// Server is the relay's HTTP interface. It is safe for concurrent use.
type Server struct {
	cfg        Config
	operations map[string]*operation
	router     chi.Router
	lines      map[requestLine]*operation // the same as operations, by what chi finds
	metrics    *metrics
	refusals   *refusals.Counter
	announcer  *announcer
	addresses  *limiter // rates by address
	keys       *limiter // rates by key
	openings   *limiter // by address: what strangers are given for nothing
	probes     *limiter // by key and by address: what is tried for other relays
	load       *load
	listeners  *listeners
	tellers    *tellers
	draining   context.Context // done once Drain was called
	drain      context.CancelFunc
	conf       atomic.Pointer[Live]
	seldom     rate.Sometimes // for the log: all requests fail alike while the database is away; metrics count each
}

// New checks the configuration and signs the first announcement. It starts nothing.
func New(cfg Config) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg:        cfg,
		operations: operations(cfg.Limits.RecordBytes),
		addresses:  newLimiter(cfg.Rates.Address, cfg.Rates.Tracked),
		keys:       newLimiter(cfg.Rates.Key, cfg.Rates.Tracked),
		openings:   newLimiter(openingRate(cfg.Rates), cfg.Rates.Tracked),
		probes:     newLimiter(Rate{PerSecond: probesPerSecond, Burst: probeBurst}, cfg.Rates.Tracked),
		load:       newLoad(cfg.Bounds),
		listeners:  newListeners(cfg.Bounds),
		seldom:     rate.Sometimes{Interval: time.Second},
		tellers:    newTellers(),
	}
	s.conf.Store(liveOf(&cfg))
	s.announcer = &announcer{cfg: cfg, conf: &s.conf}
	if _, _, err := s.announcer.sign(cfg.Clock(), s.live(), 0); err != nil {
		return nil, fmt.Errorf("announcement: %w", err)
	}
	var err error
	if s.metrics, err = newMetrics(cfg.Registry, s); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	if s.refusals, err = refusals.New(cfg.Registry, cfg.Clock); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	s.draining, s.drain = context.WithCancel(context.Background())
	s.router = s.newRouter()
	s.attach()
	return s, nil
}

// newRouter puts the generated routes on chi. What they cannot bind is a refusal like any other.
func (s *Server) newRouter() chi.Router {
	router := chi.NewRouter()
	HandlerWithOptions(&routes{s}, ChiServerOptions{
		BaseRouter: router,
		ErrorHandlerFunc: func(w http.ResponseWriter, r *http.Request, err error) {
			s.refuse(w, r, bindingError(err))
		},
	})
	return router
}

// routes implements the generated ServerInterface: each method is an operation of openapi.yaml.
type routes struct{ *Server }

var _ ServerInterface = (*routes)(nil)

// Handler is the public interface.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// Drain ends the listeners' streams, refuses new ones, and returns when all have ended: http.Server.Shutdown does
// not know of them. No listener can hold it up. Other requests are served on.
func (s *Server) Drain() {
	s.drain()
	s.listeners.none()
}

// bindingError is the refusal of a parameter that the generated code could not read.
func bindingError(err error) error {
	var name string
	var invalid *InvalidParamFormatError
	var missing *RequiredParamError
	switch {
	case errors.As(err, &missing):
		return protocol.Errorf(protocol.CodeBadQuery, "the query parameter %s is missing", missing.ParamName)
	case errors.As(err, &invalid):
		name = invalid.ParamName
	}
	if name == "user" || name == "receiver" || name == "id" || name == "contract" {
		return protocol.Errorf(protocol.CodeBadPath, "%s is 64 lower-case hex digits in a path", name)
	}
	return protocol.Errorf(protocol.CodeBadQuery, "the query parameter %s is not readable", name)
}
