/**
 * What kind of rule made a decision, as the datafile tells it.
 * In: the SDK's OptimizelyConfig, once for each datafile; then decisions. Out: the `rule_type` of each.
 */

/** Rules that OptimizelyConfig lists as experiments, and that measure nothing: targeted deliveries, rollouts. */
const DELIVERIES_AMONG_EXPERIMENTS = ['td', 'fr'];

/** The datafile's rules: the id of each to its type. */
export function readRuleTypes(config) {
  const datafile = JSON.parse(config.getDatafile());
  const deliveries = deliveriesAmong(datafile);
  const types = new Map();
  for (const flag of Object.values(config.featuresMap)) {
    for (const { id } of flag.deliveryRules) types.set(id, 'delivery');
    for (const { id } of flag.experimentRules) types.set(id, deliveries.has(id) ? 'delivery' : 'experiment');
  }
  for (const { id } of [...(datafile.holdouts ?? []), ...(datafile.localHoldouts ?? [])]) types.set(id, 'holdout');
  return types;
}

/** Undefined: a rule that the datafile does not have. */
export function ruleTypeOf(decision, types) {
  return decision.ruleKey ? types.get(decision.experimentId) : 'none';
}

function deliveriesAmong({ experiments = [], groups = [] }) {
  const rules = [...experiments, ...groups.flatMap((group) => group.experiments)];
  return new Set(rules.filter(({ type }) => DELIVERIES_AMONG_EXPERIMENTS.includes(type)).map(({ id }) => id));
}
