/**
 * A page of a shop: it decides flags in the browser, and tells the gateway what it decided.
 * In: settings.json ({"gateway": "http://…", "writeKey": …}) and datafile.json beside it, `?visitor=` in the address.
 */
import { sendDecisions } from './decisions.js';

const { AnalyticsBrowser } = window.AnalyticsNext;
const { createInstance, createStaticProjectConfigManager } = window.optimizelySdk;

const [settings, datafile] = await Promise.all([
  fetch('settings.json').then((answer) => answer.json()),
  fetch('datafile.json').then((answer) => answer.text()),
]);
const visitorId = new URLSearchParams(location.search).get('visitor');
const gateway = new URL(settings.gateway);

const [analytics] = await AnalyticsBrowser.load(
  // With its settings given, the library asks nobody else for them.
  {
    writeKey: settings.writeKey,
    cdnSettings: { integrations: { 'Segment.io': { apiKey: settings.writeKey } } },
  },
  {
    integrations: {
      'Segment.io': { apiHost: `${gateway.host}/v1`, protocol: gateway.protocol.replace(':', '') },
    },
  },
);
// Not identify(): a public key may not change what Pendo knows of a visitor.
if (visitorId !== null) analytics.user().id(visitorId);
analytics.page();

const optimizely = createInstance({ projectConfigManager: createStaticProjectConfigManager({ datafile }) });
await optimizely.onReady();
sendDecisions(optimizely, analytics);

const user = optimizely.createUserContext(visitorId ?? analytics.user().anonymousId());
const decision = user.decide('checkout_redesign');
document.querySelector('#checkout').textContent = decision.variationKey ?? 'as it was';
