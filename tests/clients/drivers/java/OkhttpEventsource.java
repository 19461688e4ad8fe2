import com.google.gson.Gson;
import com.launchdarkly.eventsource.ConnectStrategy;
import com.launchdarkly.eventsource.ErrorStrategy;
import com.launchdarkly.eventsource.EventSource;
import com.launchdarkly.eventsource.MessageEvent;
import java.net.URI;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** LaunchDarkly's okhttp-eventsource: reconnects and resumes by itself. */
public class OkhttpEventsource {
  public static void main(String[] arguments) {
    EventSource.Builder builder =
        new EventSource.Builder(ConnectStrategy.http(URI.create(arguments[0])))
            .errorStrategy(ErrorStrategy.alwaysContinue())
            .retryDelay(100, TimeUnit.MILLISECONDS);
    Gson gson = new Gson();
    try (EventSource source = builder.build()) {
      for (MessageEvent event : source.messages()) {
        System.out.println(gson.toJson(List.of(event.getEventName(), event.getData())));
      }
    }
  }
}
