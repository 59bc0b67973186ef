// What the dashboards and the resources are checked against. The test writes each document into a
// file of its own with `satisfies` behind it: that finds unknown keys too.

import type { Dashboard, Panel, RowPanel, VariableModel } from "@grafana/schema";
import type { Options as BarGaugeOptions } from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type { Options as StatOptions } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { FieldConfig as TableFields, Options as TableOptions } from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type { FieldConfig as SeriesFields, Options as SeriesOptions } from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
import type { IScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import type { IPodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import type { IPrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";

// JSON has no enums: their values stand for them.
type Json<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends (infer Item)[]
      ? Json<Item>[]
      : T extends object
        ? { [Key in keyof T]: Json<T[Key]> }
        : T;

type Datasource = { type: "prometheus"; uid: string };

type Target = {
  refId: string;
  datasource: Datasource;
  editorMode: "code";
  expr: string;
  legendFormat: string;
  instant: boolean;
  range: boolean;
  format: "time_series" | "table";
};

type FieldDefaults<Custom> = Omit<
  NonNullable<Panel["fieldConfig"]>["defaults"],
  "custom"
> & { custom?: Custom };

type PanelOf<Kind extends string, Options, Custom> = Omit<
  Panel,
  "type" | "options" | "fieldConfig" | "targets"
> & {
  type: Kind;
  title: string;
  description: string;
  options: Options;
  fieldConfig: { defaults: FieldDefaults<Custom> & { unit: string }; overrides: [] };
  targets: Target[];
};

type AnyPanel =
  | PanelOf<"timeseries", SeriesOptions, SeriesFields>
  | PanelOf<"stat", StatOptions, never>
  | PanelOf<"bargauge", BarGaugeOptions, never>
  | PanelOf<"table", TableOptions, TableFields>
  | RowPanel;

// Annotations of Prometheus have keys of their own, which Grafana's type does not know.
type Annotation = {
  name: string;
  datasource: Datasource;
  enable: boolean;
  iconColor: string;
  expr: string;
  titleFormat: string;
};

export type BoardFile = Json<
  Omit<Dashboard, "panels" | "annotations" | "templating"> & {
    uid: string;
    title: string;
    panels: AnyPanel[];
    annotations: { list: Annotation[] };
    templating: { list: VariableModel[] };
  }
>;

export type ScaledObject = IScaledObject;
export type PodMonitor = IPodMonitor;
export type PrometheusRule = IPrometheusRule;
