// Reads a list of Kubernetes resources as JSON from standard input, and holds those of other people's
// kinds against the schemas of their definitions. Prints one line for each that it knows.

import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { readFileSync } from "node:fs";

const known = { ScaledObject, PodMonitor, PrometheusRule };

for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  const name = `${resource.kind} ${resource.metadata.name}`;
  const Model = known[resource.kind];
  if (Model === undefined) throw new Error(`${name}: no schema of that kind here`);
  try {
    new Model(resource).validate();
  } catch (error) {
    throw new Error(`${name}: ${error.message}`);
  }
  console.log(`valid: ${name}`);
}
