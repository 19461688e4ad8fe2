import com.google.gson.Gson;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.List;

/** Java's own client as it is made without options: it offers HTTP/2 with each first request of a connection. */
public class HttpClientProducer {
  record Post(String body, boolean chunked) {}

  public static void main(String[] arguments) throws Exception {
    Gson gson = new Gson();
    HttpClient client = HttpClient.newHttpClient();
    for (Post post : gson.fromJson(new InputStreamReader(System.in), Post[].class)) {
      BodyPublisher body = BodyPublishers.ofString(post.body());
      HttpRequest request =
          HttpRequest.newBuilder(URI.create(arguments[0]))
              .header("Content-Type", "application/json")
              .POST(post.chunked() ? BodyPublishers.fromPublisher(body) : body)
              .build();
      var response = client.send(request, BodyHandlers.ofString());
      System.out.println(gson.toJson(List.of(response.statusCode(), response.body())));
    }
  }
}
