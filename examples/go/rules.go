package main

import (
	"encoding/json"

	"github.com/optimizely/go-sdk/v2/pkg/config"
)

// ruleTypes says what kind of rule made a decision, as one datafile tells it: rule_type by flag and rule key.
type ruleTypes map[[2]string]string

// readRuleTypes reads the datafile's rules. This SDK knows no holdouts, so nobody is held out by one.
func readRuleTypes(rules *config.OptimizelyConfig) (ruleTypes, error) {
	deliveries, err := deliveriesAmongExperiments(rules.GetDatafile())
	if err != nil {
		return nil, err
	}
	types := ruleTypes{}
	for key, flag := range rules.FeaturesMap {
		for _, rule := range flag.DeliveryRules {
			types[[2]string{key, rule.Key}] = "delivery"
		}
		for _, rule := range flag.ExperimentRules {
			types[[2]string{key, rule.Key}] = "experiment"
			if deliveries[rule.ID] {
				types[[2]string{key, rule.Key}] = "delivery"
			}
		}
	}
	return types, nil
}

// of is "" for a rule that the datafile does not have.
func (types ruleTypes) of(flagKey, ruleKey string) string {
	if ruleKey == "" {
		return "none"
	}
	return types[[2]string{flagKey, ruleKey}]
}

type rule struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

// deliveriesAmongExperiments gives the ids of rules that OptimizelyConfig lists as experiments, and that measure
// nothing: targeted deliveries and rollouts.
func deliveriesAmongExperiments(text string) (map[string]bool, error) {
	var datafile struct {
		Experiments []rule `json:"experiments"`
		Groups      []struct {
			Experiments []rule `json:"experiments"`
		} `json:"groups"`
	}
	if err := json.Unmarshal([]byte(text), &datafile); err != nil {
		return nil, err
	}
	rules := datafile.Experiments
	for _, group := range datafile.Groups {
		rules = append(rules, group.Experiments...)
	}
	found := map[string]bool{}
	for _, each := range rules {
		if each.Type == "td" || each.Type == "fr" {
			found[each.ID] = true
		}
	}
	return found, nil
}
