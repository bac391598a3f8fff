package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// redisServer is Redis with a stream for each peer: XADD, XREADGROUP, XACK and
// XDEL, each written and synced before it is answered.
type redisServer struct {
	proc *process
	addr string
}

func (r *redisServer) pid() int { return r.proc.pid() }
func (r *redisServer) stop()    { r.proc.stop() }

func (r *redisServer) start(ctx context.Context, dir string) error { return r.boot(ctx, dir) }

func (r *redisServer) boot(ctx context.Context, dir string) error {
	bin, err := lookUp("redis-server")
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	r.addr = fmt.Sprintf("127.0.0.1:%d", port)
	r.proc, err = launch(ctx, nil, nil, bin, "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "always")
	if err != nil {
		return err
	}
	return r.proc.listening(ctx, r.addr)
}

// redisBatch is how many sends or deliveries go in one write at most.
const redisBatch = 64

// redisPeer is one peer of Redis: one connection sends, one receives and
// acknowledges. What is sent while a write is under way goes in the next.
type redisPeer struct {
	c       *redis.Client
	h       handlers
	streams []string
	me      int
	out     chan redisSend
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

type redisSend struct {
	to      int
	payload []byte
}

const redisGroup = "g"

func (r *redisServer) dial(ctx context.Context, i, n int, h handlers) (client, error) {
	p := &redisPeer{h: h, me: i, out: make(chan redisSend, 1<<14)}
	for k := range n {
		p.streams = append(p.streams, fmt.Sprintf("peer:%d", k))
	}
	p.c = redis.NewClient(&redis.Options{
		Addr: r.addr, PoolSize: 2, MaxRetries: -1, ReadTimeout: 30 * time.Second, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	err := p.c.XGroupCreateMkStream(ctx, p.streams[i], redisGroup, "0").Err()
	if err != nil && !redis.HasErrorPrefix(err, "BUSYGROUP") { // it was here before
		_ = p.c.Close()
		return nil, err
	}
	p.ctx, p.cancel = context.WithCancel(ctx)
	p.wg.Go(p.sender)
	p.wg.Go(p.receiver)
	return p, nil
}

func (p *redisPeer) send(to int, payload []byte) {
	select {
	case p.out <- redisSend{to, payload}:
	case <-p.ctx.Done():
	}
}

func (p *redisPeer) close() {
	p.cancel()
	_ = p.c.Close() // a blocked read ends with it
	p.wg.Wait()
}

// broken reports a failure that is not our own hanging up.
func (p *redisPeer) broken(err error) {
	if p.ctx.Err() == nil {
		p.h.fail(err)
	}
}

func (p *redisPeer) sender() {
	var batch []redisSend
	for {
		batch = batch[:0]
		select {
		case s := <-p.out:
			batch = append(batch, s)
		case <-p.ctx.Done():
			return
		}
	more:
		for len(batch) < redisBatch {
			select {
			case s := <-p.out:
				batch = append(batch, s)
			default:
				break more
			}
		}
		pipe := p.c.Pipeline()
		for _, s := range batch {
			pipe.XAdd(p.ctx, &redis.XAddArgs{Stream: p.streams[s.to], Values: []any{"d", s.payload}})
		}
		if _, err := pipe.Exec(p.ctx); err != nil {
			p.broken(err)
			return
		}
		for _, s := range batch {
			p.h.acked(s.payload)
		}
	}
}

func (p *redisPeer) receiver() {
	stream := p.streams[p.me]
	for p.ctx.Err() == nil {
		read, err := p.c.XReadGroup(p.ctx, &redis.XReadGroupArgs{
			Group: redisGroup, Consumer: "c", Streams: []string{stream, ">"}, Count: redisBatch, Block: time.Second,
		}).Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			p.broken(err)
			return
		}
		for _, s := range read {
			var ids []string
			for _, m := range s.Messages {
				if d, ok := m.Values["d"].(string); ok {
					p.h.got([]byte(d))
				}
				ids = append(ids, m.ID)
			}
			pipe := p.c.Pipeline()
			pipe.XAck(p.ctx, stream, redisGroup, ids...)
			pipe.XDel(p.ctx, stream, ids...)
			if _, err := pipe.Exec(p.ctx); err != nil {
				p.broken(err)
				return
			}
		}
	}
}
