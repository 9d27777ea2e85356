/**
 * Sends an Optimizely client's flag decisions through Segment's library.
 * In: the SDK's DECISION notifications. Out: track calls `Experiment Viewed`, with the properties that Flagpost gives
 * them; the same decision once a page.
 */
export function sendDecisions(optimizely, analytics, eventName = 'Experiment Viewed') {
  const { DECISION } = window.optimizelySdk.NOTIFICATION_TYPES;
  const last = new Map();
  optimizely.notificationCenter.addNotificationListener(DECISION, ({ type, userId, decisionInfo }) => {
    if (type !== 'flag') return;
    const properties = propertiesOf(decisionInfo);
    const said = JSON.stringify([userId, properties]);
    if (last.get(properties.flag_key) === said) return;
    last.set(properties.flag_key, said);
    analytics.track(eventName, properties);
  });
}

function propertiesOf({ flagKey, variationKey, ruleKey, enabled }) {
  const variation = enabled ? variationKey : 'off';
  return {
    flag_key: flagKey,
    ...(variation !== null && { variation_key: variation }),
    ...(ruleKey !== null && { rule_key: ruleKey }),
    enabled,
  };
}
