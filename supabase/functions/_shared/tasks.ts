// Rows as functions of the API answer them.

export interface Task {
  id: string;
  task_type: string;
  params: Record<string, unknown>;
  status: "Queued" | "In Progress" | "Complete" | "Failed" | "Cancelled";
  dependant_on: string[];
  output_location: string | null;
  worker_id: string | null;
}
