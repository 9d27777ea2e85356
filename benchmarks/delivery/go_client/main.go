// Command go_client delivers track events as a Go service would: franz-go and net/http, each visitor's events in order.
//
// A visitor's key chooses one of as many queues as there may be requests in flight; a queue sends one after the other.
// Offsets are committed up to the first record that is not done.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	fingerprintBytes = 10 // of Avro's single-object encoding
	queued           = 1024
	commitInterval   = time.Second
)

type event struct {
	OccurredAt time.Time      `avro:"occurred_at"`
	VisitorID  *string        `avro:"visitor_id"`
	Event      string         `avro:"event"`
	Properties map[string]any `avro:"properties"`
}

type body struct {
	Type       string         `json:"type"`
	Event      string         `json:"event"`
	VisitorID  string         `json:"visitorId"`
	Timestamp  int64          `json:"timestamp"`
	Properties map[string]any `json:"properties"`
	Context    struct{}       `json:"context"`
}

// progress is the records of a partition that were read and are not committed.
type progress struct {
	mutex sync.Mutex
	next  int64 // offset to commit
	done  map[int64]bool
}

func (p *progress) finish(offset int64) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.done[offset] = true
	for p.done[p.next] {
		delete(p.done, p.next)
		p.next++
	}
}

func (p *progress) committable() int64 {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.next
}

type work struct {
	record *kgo.Record
	of     *progress
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func httpClient(connections int) *http.Client {
	transport := &http.Transport{MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections}
	if file := os.Getenv("DELIVER_CA"); file != "" {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(must(os.ReadFile(file)))
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return &http.Client{Transport: transport}
}

func send(client *http.Client, url string, schema avro.Schema, value []byte) error {
	var read event
	if err := avro.Unmarshal(schema, value[fingerprintBytes:], &read); err != nil {
		return err
	}
	text, err := json.Marshal(body{
		Type: "track", Event: read.Event, VisitorID: *read.VisitorID,
		Timestamp: read.OccurredAt.UnixMilli(), Properties: read.Properties,
	})
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("content-type", "application/json")
	request.Header.Set("x-pendo-integration-key", "secret")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err = io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", response.Status)
	}
	return nil
}

func main() {
	connections := must(strconv.Atoi(os.Getenv("DELIVER_CONNECTIONS")))
	url, topic, group := os.Getenv("DELIVER_URL"), os.Getenv("DELIVER_TOPIC"), os.Getenv("DELIVER_GROUP")
	schema := must(avro.Parse(string(must(os.ReadFile(os.Getenv("DELIVER_SCHEMA"))))))
	client := httpClient(connections)
	kafka := must(kgo.NewClient(
		kgo.SeedBrokers(os.Getenv("DELIVER_KAFKA")), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
	))

	queues := make([]chan work, connections)
	for number := range queues {
		queues[number] = make(chan work, queued)
		go func() {
			for one := range queues[number] {
				if err := send(client, url, schema, one.record.Value); err != nil {
					log.Fatal(err)
				}
				one.of.finish(one.record.Offset)
			}
		}()
	}

	var mutex sync.Mutex
	partitions := map[int32]*progress{}
	commit := func() {
		offsets := map[int32]kgo.EpochOffset{}
		mutex.Lock()
		for number, one := range partitions {
			offsets[number] = kgo.EpochOffset{Epoch: -1, Offset: one.committable()}
		}
		mutex.Unlock()
		kafka.CommitOffsetsSync(context.Background(), map[string]map[int32]kgo.EpochOffset{topic: offsets}, nil)
	}
	go func() {
		for range time.Tick(commitInterval) {
			commit()
		}
	}()

	go func() {
		for {
			kafka.PollFetches(context.Background()).EachRecord(func(record *kgo.Record) {
				mutex.Lock()
				of := partitions[record.Partition]
				if of == nil {
					of = &progress{next: record.Offset, done: map[int64]bool{}}
					partitions[record.Partition] = of
				}
				mutex.Unlock()
				hash := fnv.New32a()
				hash.Write(record.Key)
				queues[hash.Sum32()%uint32(connections)] <- work{record, of}
			})
		}
	}()

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	commit()
	kafka.Close()
}
