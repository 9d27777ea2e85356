// A service: for each user on stdin, a JSON line {"visitor_id": …, "attributes": {…}}, it decides all flags.
// Out: the decisions on stdout; the publisher takes them to Kafka.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/optimizely/go-sdk/v2/pkg/client"
	"github.com/optimizely/go-sdk/v2/pkg/config"
	"github.com/optimizely/go-sdk/v2/pkg/event"
	"github.com/optimizely/go-sdk/v2/pkg/logging"
	"github.com/optimizely/go-sdk/v2/pkg/notification"
)

func main() {
	log.SetFlags(0)
	logging.SetLogLevel(logging.LogLevelError)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	publisher, err := NewDecisionPublisher(Options{
		BootstrapServers: strings.Split(setting("FLAGPOST_KAFKA__BOOTSTRAP_SERVERS", "localhost:9092"), ","),
		Topic:            setting("FLAGPOST_KAFKA__TOPIC", "flagpost.events"),
		SchemaPath:       "../../schemas/avro/DecisionEvent.avsc",
		Service:          "example-go",
		Attributes:       []string{"plan", "seats", "score", "beta"},
		Now:              now,
		OnError:          func(err error) { log.Print(err) },
	})
	if err != nil {
		return err
	}
	optimizely, err := optimizelyClient(publisher)
	if err != nil {
		return err
	}
	defer optimizely.Close()
	publisher.Follow(optimizely)
	if err := serve(optimizely, os.Stdin); err != nil {
		return err
	}
	return flush(publisher)
}

func optimizelyClient(publisher *DecisionPublisher) (*client.OptimizelyClient, error) {
	datafile, err := os.ReadFile(setting("DATAFILE", "../datafile.json"))
	if err != nil {
		return nil, err
	}
	center := notification.NewNotificationCenter()
	if err := publisher.Attach(center); err != nil {
		return nil, err
	}
	factory := client.OptimizelyFactory{}
	return factory.Client(
		client.WithNotificationCenter(center),
		// The datafile is a made-up project's: nothing is fetched for it, and its impressions go nowhere.
		// Leave these two out for a real one.
		client.WithConfigManager(config.NewStaticProjectConfigManagerWithOptions("", config.WithInitialDatafile(datafile))),
		client.WithEventDispatcher(nowhere{}),
		client.WithOdpDisabled(true),
	)
}

type nowhere struct{}

func (nowhere) DispatchEvent(event.LogEvent) (bool, error) { return true, nil }

type visit struct {
	VisitorID  string         `json:"visitor_id"`
	Attributes map[string]any `json:"attributes"`
}

func serve(optimizely *client.OptimizelyClient, users io.Reader) error {
	lines := json.NewDecoder(users)
	lines.UseNumber()
	for {
		var user visit
		err := lines.Decode(&user)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("a user is a JSON line like {\"visitor_id\": \"v1\"}: %w", err)
		}
		decideAll(optimizely, user)
	}
}

func decideAll(optimizely *client.OptimizelyClient, user visit) {
	for name, value := range user.Attributes {
		if number, ok := value.(json.Number); ok {
			user.Attributes[name] = native(number)
		}
	}
	visitor := optimizely.CreateUserContext(user.VisitorID, user.Attributes)
	for flag, decision := range visitor.DecideAll(nil) {
		shown := "off"
		if decision.Enabled {
			shown = decision.VariationKey
		}
		fmt.Println(user.VisitorID, flag, shown)
	}
}

func native(number json.Number) any {
	if integer, err := number.Int64(); err == nil {
		return integer
	}
	float, _ := number.Float64()
	return float
}

func flush(publisher *DecisionPublisher) error {
	seconds, err := strconv.ParseFloat(setting("FLUSH_SECONDS", "10"), 64)
	if err != nil {
		return fmt.Errorf("FLUSH_SECONDS: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds*float64(time.Second)))
	defer cancel()
	failed := publisher.Close(ctx)
	log.Printf("%d decisions published, %d failed", publisher.Delivered.Load(), failed)
	if failed > 0 {
		return errors.New("not every decision reached Kafka")
	}
	return nil
}

func now() time.Time {
	if milliseconds, err := strconv.ParseInt(os.Getenv("OCCURRED_AT"), 10, 64); err == nil {
		return time.UnixMilli(milliseconds)
	}
	return time.Now()
}

func setting(name, otherwise string) string {
	return cmp.Or(os.Getenv(name), otherwise)
}
